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

if [ "${1:-}" = fcnreg ]; then
    exec "$@"
fi
exec bids_fcnreg "$@"
