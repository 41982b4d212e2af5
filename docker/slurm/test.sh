#!/usr/bin/env bash
# Starts SLURM on this machine and registers phantoms in two ways: as a job array, one job of which is
# killed and requeued, and with Nipype's plugin. Requires root, slurm-wlm and munge.
#   docker/slurm/test.sh [DIR]      default: build/slurm
# VENV is the virtual environment with bids_fcnreg (default .venv).
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath --canonicalize-missing "${1:-build/slurm}")
bin=$(realpath "${VENV:-.venv}")/bin
export PATH=$bin:$PATH
rm -rf "$folder" && mkdir -p "$folder/state" "$folder/spool"
say() { printf '\n== %s\n' "$*"; }

say "Start SLURM on one machine"
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
cat > "$folder/slurm.conf" <<EOF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MaxArraySize=10001
KillWait=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$folder/slurm.conf
if [ ! -s /etc/munge/munge.key ]; then
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
    chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
fi
mkdir -p /run/munge && chown munge: /run/munge
munge -n > /dev/null 2>&1 || runuser -u munge -- /usr/sbin/munged --force
slurmctld
slurmd
trap 'kill $(cat "$folder"/slurm{d,ctld}.pid) 2> /dev/null || true' EXIT
for _ in $(seq 30); do
    [ "$(sinfo -h -o %t 2> /dev/null)" = idle ] && break
    sleep 1
done
sinfo

say "Simulate phantoms"
data=$folder/bids out=$folder/out
fcnreg phantom "$data" --participants 2 --seed 3
options=(--mode predict --device cpu)

say "A job array; the first job is killed and requeued while it registers"
docker/slurm/participants.sh "$data" "$out" "${options[@]}" > "$folder/participants.txt"
cat "$folder/participants.txt"
array=$(sbatch --parsable --array=1-2 --cpus-per-task=1 --mem=5G --output="$folder/array_%a.log" \
    docker/slurm/array.sbatch "$folder/participants.txt" "$data" "$out" "$folder/scratch" "${options[@]}")
first=$(sed -n 1p "$folder/participants.txt")
until [ -n "$(find "$folder/scratch/sub-$first" -path '*preprocess_wf/*' -name 'result_*.pklz' 2> /dev/null)" ]
do
    sleep 0.5
done
scontrol requeue "${array}_1"
while [ -n "$(squeue -h -j "$array")" ]; do sleep 2; done
scontrol show job "$array" | grep -E -o 'ArrayTaskId=[0-9]+|JobState=\w+|Restarts=[0-9]+|ExitCode=\S+'
tail -n 3 "$folder"/array_*.log
[ "$(scontrol show job "$array" | grep -c 'JobState=COMPLETED')" = 2 ]
scontrol show job "${array}_1" | grep -q 'Restarts=1'
[ -z "$(docker/slurm/participants.sh "$data" "$out" "${options[@]}")" ] # all are done

say "Nipype's plugin"
bids_fcnreg "$data" "$folder/plugin-out" participant "${options[@]}" --skip-bids-validation \
    -w "$folder/plugin-scratch" --use-plugin docker/slurm/plugin.yml --omp-nthreads 1
scontrol show job | grep -o ' TRES=.*' | sort | uniq --count # allocated resources

say "Compare the results"
python docker/compare.py --exact "$out" "$folder/plugin-out"
