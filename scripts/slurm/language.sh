#!/usr/bin/env bash
# Language models that are split over many GPUs, as a job of Slurm, from the root of a clone:
#
#   sbatch --partition=gpu scripts/slurm/language.sh --config=rigl_transformer:c4 --workdir=runs/language
#
# One process a node, with all of its GPUs. The state is split within a node
# (config.mesh.fsdp) and copied to every node: only gradients travel between nodes.
# What is given to sbatch goes before what is written here.
#SBATCH --job-name=sparsejax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --time=48:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
exec bash "${SLURM_SUBMIT_DIR:-.}/scripts/slurm/train.sh" --config.mesh.fsdp=8 "$@"
