#!/usr/bin/env bash
# Agents, several seeds in one program, as a job of Slurm, from the root of a clone:
#
#   sbatch --partition=gpu scripts/slurm/reinforcement.sh --config=rigl_sac_halfcheetah --workdir=runs/reinforcement
#
# Acting and learning are one program on one GPU; more GPUs take more seeds
# (config.seeds, a multiple of their number).
# What is given to sbatch goes before what is written here.
#SBATCH --job-name=sparsejax
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
exec bash "${SLURM_SUBMIT_DIR:-.}/scripts/slurm/train.sh" "$@"
