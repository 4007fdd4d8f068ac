#!/bin/bash
# An array of 16 jobs, each of which encodes a part of the footage with `viddiff batch`.
#
#   sbatch examples/slurm-batch.sh /data/footage /data/archive
#
# A job that is ended by its time limit, or for a more important one, is queued again and goes on. To encode
# what has come since, submit the array again.
#SBATCH --job-name=viddiff
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

source_folder=$1
archive=$2

# From the first number to the last: set --array=0-N for N + 1 parts.
part=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT

# The signal comes to this shell, which passes it on and waits until viddiff has ended orderly.
viddiff batch "$source_folder" "$archive" --shard "$part" --workers "$SLURM_CPUS_PER_TASK" --verify --json --quiet &
encoder=$!
trap 'kill -TERM "$encoder"' TERM
code=0
wait "$encoder" || code=$?
while kill -0 "$encoder" 2>/dev/null; do
    code=0
    wait "$encoder" || code=$?
done

# 143: ended by SIGTERM. Other codes stay: 0 is done, 3 means that some files failed.
if [[ $code -eq 143 ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
