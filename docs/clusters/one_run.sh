#!/bin/bash
# One run, or a seed for each job of an array, without a study. Cut off by the time limit or a preemption, it saves, goes
# back into the queue and is resumed. From the folder of the program:
#
#   sbatch --array=1-5 docs/clusters/one_run.sh --config=qtran_alt --env-config=predator_prey with t_max=500000
#
#SBATCH --job-name=qtran
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.txt
#SBATCH --signal=B:USR2@120

this=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}  # of an array's last job, the number alone is
this=${this:-$SLURM_JOB_ID}                                             # that of the whole array
case " $* " in *" with "*) ;; *) set -- "$@" with ;; esac

trap 'warned=1; kill -TERM "$run"' USR2
trap : TERM # Slurm sends it to the run as well
QTRAN_ONE_STOP=1 "${PYTHON:-.venv/bin/python}" src/main.py --resume=latest "$@" "seed=${SLURM_ARRAY_TASK_ID:-1}" &
run=$!
wait "$run"; status=$?
while kill -0 "$run" 2>/dev/null; do wait "$run"; status=$?; done
if [ -n "$warned" ] && [ "$status" -gt 128 ]; then scontrol requeue "$this"; fi
exit "$status"
