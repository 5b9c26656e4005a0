#!/usr/bin/env bash
# Any number of machines under Slurm: one launcher a machine, and each starts a process for each of its GPUs.
#
#   sbatch --nodes 4 recipes/accelerate/slurm.sh run_pretraining.py --recipe my_pretraining.yaml
#
# The clone and the output folder must lie on a disk that all machines share. The same command again, or Slurm's
# own requeueing after a preemption or a dead machine, goes on from the last checkpoint.
# One launcher a machine, not one a GPU: the launcher starts the others. 4 cores a GPU: the process itself, the two that
# make its batches, and one to spare. Two minutes before the time is over all end their step, save, and stop.
#SBATCH --job-name=two-stage
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch [--nodes N] [--gpus-per-node N] recipes/accelerate/slurm.sh run_….py --recipe … [--flag value …]" >&2
  exit 2
fi
machines=$SLURM_JOB_NUM_NODES
# Without GPUs, PROCESSES_PER_NODE says how many, and the script gets --use_cpu
processes=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
# Where all meet: the first machine, and a port of the job's own, as two jobs may share a machine
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${hosts%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 10000))
cores=${SLURM_CPUS_PER_TASK:-$processes}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / processes))}
if [ "$OMP_NUM_THREADS" -lt 1 ]; then export OMP_NUM_THREADS=1; fi

# $SLURM_NODEID is each machine's own number, so it is read there, within srun. torchrun, as accelerate's launcher takes
# neither one process alone over several machines nor a process count a machine. Of itself it kills its processes 30
# seconds after it told them to stop, in the middle of a save.
# The cores are asked for once more: since Slurm 22.05 srun does not take them over from sbatch, and all processes of a
# machine would share one.
# shellcheck disable=SC2016
exec srun --kill-on-bad-exit=1 --cpus-per-task="$cores" \
  bash -c 'exec torchrun --nnodes "$1" --nproc_per_node "$2" --node_rank "$SLURM_NODEID" \
  --master_addr "$3" --master_port "$4" --shutdown_timeout 110 "${@:5}"' launcher "$machines" "$processes" "$address" "$port" "$@"
