#!/usr/bin/env bash
# Prints the labels of the participants whose results are incomplete or outdated, one per line.
#   docker/slurm/participants.sh BIDS_DIR OUTPUT_DIR [options of bids_fcnreg] > participants.txt
# BIDS_FCNREG is the command (default: bids_fcnreg), such as
# "singularity run --cleanenv -B /data -B /scratch bids_fcnreg.sif".
set -euo pipefail
read -ra app <<< "${BIDS_FCNREG:-bids_fcnreg}"
"${app[@]}" "$1" "$2" participant "${@:3}" --dry-run |
    sed -n 's/^sub-\([^:_]*\).*: .*to register .*/\1/p' | sort --unique
