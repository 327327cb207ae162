#!/usr/bin/env bash
# Image classification and detection on many GPUs, as a job of Slurm, from the root of a clone:
#
#   sbatch --partition=gpu scripts/slurm/vision.sh --config=rigl_resnet50:imagenet --workdir=runs/vision
#
# One process a node, with all of its GPUs; reading and decoding images takes the
# cores: config.data.worker_count processes read, about 8 for each GPU.
# What is given to sbatch goes before what is written here.
#SBATCH --job-name=sparsejax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180
exec bash "${SLURM_SUBMIT_DIR:-.}/scripts/slurm/train.sh" --config.data.worker_count=48 "$@"
