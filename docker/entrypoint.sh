#!/bin/sh
# Runs the app, or, where the first word is its name, `fcnreg`.
set -eu

# As another user than the image's, or with a read-only root, there may be no home to write to.
# What libraries keep for the next time goes to the temporary folder then.
if [ ! -d "${HOME:-}" ] || [ ! -w "${HOME}" ]; then
    HOME=$(mktemp -d "${TMPDIR:-/tmp}/home.XXXXXXXX")
    export HOME
fi
# A user id without a name has none to be found.
export USER="${USER:-user}" LOGNAME="${LOGNAME:-user}"

if [ "${1:-}" = fcnreg ]; then
    exec "$@"
fi
exec bids_fcnreg "$@"
