#!/usr/bin/env bash
# What the jobs beside this file have in common: trains with one process a task, and
# puts the job back into the queue when it was interrupted or lost a host.
#
#   bash scripts/slurm/train.sh --config=NAME --workdir=FOLDER [--config.FIELD=VALUE ...]
#
# within a job. The interpreter is .venv/bin/python, or $PYTHON. The job goes back into
# the queue at most $RESTARTS times (100), and continues from its last checkpoint.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?this is for a job of Slurm: sbatch scripts/slurm/vision.sh ...}"

# Each process sees by itself when another one has ended, and says so; srun is not to
# kill it before. SIGTERM, before the time is over or at a preemption, saves.
srun --kill-on-bad-exit=0 --wait=120 "${PYTHON:-.venv/bin/python}" -u -m sparsejax.train "$@"
code=$?

# 75: interrupted and saved; 76, 137, 143: a process or a host was lost.
case $code in
75 | 76 | 137 | 143)
  if ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-100})); then
    echo "exit code $code: back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  ;;
esac
exit "$code"
