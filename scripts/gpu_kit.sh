#!/usr/bin/env bash
# Pack what a GPU machine without network lacks into .kit, in chunks that travel with calls: see scripts/gpu_kit.py and docs/gpu_kit.md.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python scripts/gpu_kit.py "$@"
