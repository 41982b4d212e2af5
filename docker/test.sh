#!/usr/bin/env bash
# Builds the image with podman, runs the demo in it as on a cluster, and compares the results with
# those of the same run outside of the container.
#   docker/test.sh [DIR]            default: build/docker
# Requires podman, and debootstrap without access to a registry. VENV is the virtual environment
# for the run outside. DEBIAN is the release of the base image (default trixie). BUILD_OPTIONS and
# RUN_OPTIONS are additional options of podman. With Charliecloud installed, the app runs in it, too.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath --canonicalize-missing "${1:-build/docker}")
bin=$(realpath "${VENV:-.venv}")/bin
mkdir -p "$folder"
say() { printf '\n== %s\n' "$*"; }

say "Image"
release=${DEBIAN:-trixie}
base=docker.io/library/debian:$release-slim
podman image exists "$base" || podman pull --quiet "$base" ||
    docker/base.sh "$(mktemp -d "$folder/base.XXXX")/debian" "$release"

# The build uses pip's configuration of this machine.
build=(--isolation chroot --network host --build-arg DEBIAN="$release")
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
podman run --rm --entrypoint cat bids_fcnreg /opt/bids_fcnreg/share/sbom/bids_fcnreg.cdx.json \
    > "$folder/bids_fcnreg.cdx.json"
"$bin/python" docs/check_licences.py "$folder/bids_fcnreg.cdx.json"
test "bids_fcnreg $(podman run --rm --entrypoint cat bids_fcnreg /version)" = \
    "$(podman run --rm bids_fcnreg --version)"

# Restrictions of Singularity and clusters: a read-only root, no network, a user id without name or
# home directory; only the output directory, the work directory and /tmp are writable.
data=$folder/bids out=$folder/out work=$folder/work
rm -rf "$data" "$out" "$work" "$folder/outside" "$folder/outside-work"
mkdir -p "$out" "$work" && chmod 777 "$out" "$work" "$folder"
run=(--rm --read-only --network none --user 4321:4321)
run+=(--ulimit nofile=1024:1024 --ulimit nproc=1000:1000) # low limits
if [ -x "$(command -v runc)" ]; then run+=(--runtime runc); fi
in_container() {
    # shellcheck disable=SC2086
    podman run "${run[@]}" ${RUN_OPTIONS:-} "$@"
}

say "Simulate phantoms in the container"
in_container -v "$folder:$folder" bids_fcnreg fcnreg phantom "$data" --participants 2 --seed 3
arguments=(participant --skip-bids-validation --nprocs 2 --omp-nthreads 2)

say "Run in the container, where no kernel is compiled"
mkdir -p "$folder/home" && chmod 777 "$folder/home"
rm -rf "$folder/home/.cache"
in_container -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" \
    -v "$folder/home:/home/test" --env HOME=/home/test bids_fcnreg \
    /data /out "${arguments[@]}" -w /work
if grep -w avx2 --quiet /proc/cpuinfo; then
    diff <(podman run --rm --entrypoint sh bids_fcnreg -c 'cd /opt/kernels/* && find . -type f | sort') \
        <(cd "$folder"/home/.cache/bids_fcnreg/kernels-* && find . -type f | sort)
fi
in_container -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg /data /out group -w /work

say "Run outside of the container"
"$bin/bids_fcnreg" "$data" "$folder/outside" "${arguments[@]}" -w "$folder/outside-work"
"$bin/bids_fcnreg" "$data" "$folder/outside" group -w "$folder/outside-work"

say "Compare the results"
"$bin/python" docker/compare.py "$out" "$folder/outside"

say "Run in Charliecloud"
if [ -x "$(command -v ch-run)" ]; then
    rm -rf "$folder/charliecloud" "$folder/charliecloud-out"
    mkdir "$folder/charliecloud-out"
    USER=${USER:-$(id -un)} ch-convert -i podman -o dir bids_fcnreg:latest "$folder/charliecloud"
    USER=${USER:-$(id -un)} ch-run --unset-env='*' --set-env --set-env=HOME=/mnt/1 --bind "$data:/mnt/0" \
        --bind "$folder/charliecloud-out:/mnt/1" "$folder/charliecloud" -- entrypoint.sh \
        /mnt/0 /mnt/1/derivatives "${arguments[@]}" -w /mnt/1/work --participant-label 01
    test -s "$folder"/charliecloud-out/derivatives/sub-01/anat/*_to-T1w_mode-image_xfm.h5
    rm -rf "$folder/charliecloud"
else
    echo "Skipped: Charliecloud is not installed."
fi

say "Error messages (each followed by the exit code)"
show_error() { "$@" || echo "exit code $?"; }
show_error in_container -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work --device cuda
show_error in_container -v "$data:/data:ro" -v "$out:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work --template MNI152NLin6Asym
show_error in_container -v "$data:/data:ro" -v "$out:/out:ro" -v "$work:/work" bids_fcnreg \
    /data /out participant -w /work
mkdir -p --mode=755 "$folder/others"
show_error in_container -v "$data:/data:ro" -v "$folder/others:/out" -v "$work:/work" bids_fcnreg \
    /data /out participant
show_error in_container -v "$data:/data:ro" -v "$out:/out" --tmpfs /work:size=20m,mode=1777 bids_fcnreg \
    /data /out participant -w /work --skip-bids-validation --participant-label 01
