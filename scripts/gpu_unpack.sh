#!/usr/bin/env bash
# Unpack the kit on the machine without network: see scripts/gpu_unpack.py and docs/gpu_kit.md.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/gpu_unpack.py "$@"
