#!/usr/bin/env bash
# Builds debian:RELEASE-slim from Debian's packages, for machines without access to a registry.
#   docker/base.sh DIR [RELEASE]        default: trixie; requires root, debootstrap and podman
set -euo pipefail
release=${2:-trixie}
debootstrap --variant=minbase "$release" "$1" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/*
rm -rf "$1"/usr/share/{doc,info,locale,man}/*
tar --create --directory "$1" . | podman import - "docker.io/library/debian:$release-slim"
