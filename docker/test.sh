#!/usr/bin/env bash
# Builds the image with podman, runs the demo in it as clusters run containers, and compares the
# results with those of the same run outside.
#   docker/test.sh [FOLDER]            default: build/docker
# BASE=new makes the base image from Debian's packages instead of pulling it. BUILD_OPTIONS and
# RUN_OPTIONS are more words for `podman build` and `podman run`, VENV is the environment to run in
# outside of the container.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath --canonicalize-missing "${1:-build/docker}")
bin=$(realpath "${VENV:-.venv}")/bin
mkdir -p "$folder"
say() { printf '\n== %s\n' "$*"; }

say "Image"
if [ "${BASE:-}" = new ]; then
    docker/base.sh "$(mktemp -d "$folder/base.XXXX")/debian"
fi
# shellcheck disable=SC2086
ENGINE=podman docker/build.sh ${BUILD_OPTIONS:-}
podman history --format '{{.Size}}\t{{.CreatedBy}}' bids_fcnreg:latest
podman image inspect --format '{{.Size}} bytes' bids_fcnreg:latest

# What Singularity and clusters do to a container: a read-only root, no network, a user id without
# name or home; only the output, the work folder and /tmp can be written.
data=$folder/bids out=$folder/out work=$folder/work
rm -rf "$data" "$out" "$work" "$folder/outside" "$folder/outside-work"
mkdir -p "$out" "$work" && chmod 777 "$out" "$work" "$folder"
boxed() {
    # shellcheck disable=SC2086
    podman run --rm --read-only --network none --user 4321:4321 ${RUN_OPTIONS:-} "$@"
}

say "Phantoms, made in the container"
boxed -v "$folder:$folder" bids_fcnreg fcnreg phantom "$data" --participants 2 --seed 3
words=(participant --skip-bids-validation --nprocs 2 --omp-nthreads 2)

say "In the container"
boxed -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg \
    /data /out "${words[@]}" -w /work
boxed -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg /data /out group -w /work

say "Outside"
"$bin/bids_fcnreg" "$data" "$folder/outside" "${words[@]}" -w "$folder/outside-work"
"$bin/bids_fcnreg" "$data" "$folder/outside" group -w "$folder/outside-work"

say "The same?"
"$bin/python" docker/compare.py "$out" "$folder/outside"

say "What it says when something is missing (exit code after each)"
tell() { "$@" || echo "exit code $?"; }
tell boxed -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work --device cuda
tell boxed -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work --template MNI152NLin2009cAsym
tell boxed -v "$data:/data:ro" -v "$out:/out:ro" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work
mkdir -p --mode=755 "$folder/others"
tell boxed -v "$data:/data:ro" -v "$folder/others:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant
tell boxed -v "$data:/data:ro" -v "$out:/out" --tmpfs /work:size=20m,mode=1777 bids_fcnreg \
    /data /out participant -w /work --skip-bids-validation --participant-label 01
