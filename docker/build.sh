#!/usr/bin/env bash
# Builds the image bids_fcnreg:VERSION, also tagged bids_fcnreg:latest.
#   docker/build.sh [options of `docker build`, such as --build-arg TORCH_INDEX=…]
# ENGINE is docker (default) or podman.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' bids_fcnreg/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
exec "${ENGINE:-docker}" build \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --tag "bids_fcnreg:$version" --tag bids_fcnreg:latest "$@" .
