#!/usr/bin/env bash
# Builds the image with podman, runs the demo in it as clusters run containers, and compares the
# results with those of the same run outside.
#   docker/test.sh [FOLDER]            default: build/docker
# Needs podman; debootstrap, where no registry of images is reached. VENV is the environment to run
# in outside of the container. More words for podman are BUILD_OPTIONS and RUN_OPTIONS.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath --canonicalize-missing "${1:-build/docker}")
bin=$(realpath "${VENV:-.venv}")/bin
mkdir -p "$folder"
say() { printf '\n== %s\n' "$*"; }

say "Image"
base=docker.io/library/debian:bookworm-slim
podman image exists "$base" || podman pull --quiet "$base" ||
    docker/base.sh "$(mktemp -d "$folder/base.XXXX")/debian"

# This machine's ways to Python packages are those of the build, too.
build=(--isolation chroot --network host)
curl --silent --fail --max-time 20 --output /dev/null https://download.pytorch.org/whl/cpu/ ||
    build+=(--build-arg TORCH_INDEX=)
{
    echo "[global]"
    "$bin/pip" config list | sed -n "s/^global\.\([^=]*\)='\(.*\)'$/\1 = \2/p" |
        sed 's|^cert = .*|cert = /ca.crt|'
} > "$folder/pip.conf"
build+=(-v "$folder/pip.conf:/etc/pip.conf:ro" -v "${SSL_CERT_FILE:-/dev/null}:/ca.crt:ro")
for path in $(grep -o '/\w[^/ ]*/[^/ ]*' "$folder/pip.conf" | sort --unique); do
    if [ -d "$path" ]; then build+=(-v "$path:$path:ro"); fi
done
# shellcheck disable=SC2086
ENGINE=podman docker/build.sh "${build[@]}" ${BUILD_OPTIONS:-}
podman history --format '{{.Size}}\t{{.CreatedBy}}' bids_fcnreg:latest
podman image inspect --format '{{.Size}} bytes' bids_fcnreg:latest

# What Singularity and clusters do to a container: a read-only root, no network, a user id without
# name or home; only the output, the work folder and /tmp can be written.
data=$folder/bids out=$folder/out work=$folder/work
rm -rf "$data" "$out" "$work" "$folder/outside" "$folder/outside-work"
mkdir -p "$out" "$work" && chmod 777 "$out" "$work" "$folder"
run=(--rm --read-only --network none --user 4321:4321)
run+=(--ulimit nofile=1024:1024 --ulimit nproc=1000:1000) # as little as anybody has
if [ -x "$(command -v runc)" ]; then run+=(--runtime runc); fi
boxed() {
    # shellcheck disable=SC2086
    podman run "${run[@]}" ${RUN_OPTIONS:-} "$@"
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
