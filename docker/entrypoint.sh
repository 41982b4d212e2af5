#!/bin/sh
# Runs `bids_fcnreg`, or `fcnreg` if that is the first argument.
set -eu

# As another user, or with a read-only root, the home directory may not be writable: then the
# caches of libraries go to the temporary directory.
if [ ! -d "${HOME:-}" ] || [ ! -w "${HOME}" ]; then
    HOME=$(mktemp -d "${TMPDIR:-/tmp}/home.XXXXXXXX")
    export HOME
fi
# Some libraries require a user name.
export USER="${USER:-user}" LOGNAME="${LOGNAME:-user}"

# The kernels in /opt/kernels are compiled for any x86-64 processor with these instructions.
suits_this_processor() {
    [ "$(uname -m)" = x86_64 ] || return 1
    for instructions in avx2 bmi1 bmi2 f16c fma abm movbe; do
        grep -q -w "$instructions" /proc/cpuinfo || return 1
    done
}
# numba reads compiled kernels only from a directory that it can write: copy them once, as a whole.
copy_kernels() {
    [ -d "$2" ] && return
    mkdir -p "${2%/*}" 2>/dev/null && copy=$(mktemp -d "$2.XXXXXXXX") || return 1
    if cp -R "$1/." "$copy"; then mv -T "$copy" "$2"; fi 2>/dev/null
    rm -rf "$copy"
    [ -d "$2" ]
}
for kernels in /opt/kernels/*; do
    target=$HOME/.cache/bids_fcnreg/kernels-${kernels##*/}
    if [ -d "$kernels" ] && [ -z "${NUMBA_CACHE_DIR:-}${NUMBA_CPU_NAME:-}" ] &&
        suits_this_processor && copy_kernels "$kernels" "$target"; then
        export NUMBA_CACHE_DIR="$target" NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=
    fi
done

if [ "${1:-}" = fcnreg ]; then
    exec "$@"
fi
exec bids_fcnreg "$@"
