#!/usr/bin/env bash
# Create .venv and install everything once. `make` calls this when the stamp is older than the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  stop "Python 3.11, 3.12 or 3.13 (with its venv module) was not found; install one, or name it: make PYTHON=/path/to/python"
}

install_cpu() {
  say "no NVIDIA driver found: installing the CPU environment (requirements/cpu.txt)"
  "$pip" install --quiet --no-deps --no-compile --requirement requirements/cpu.txt ||
    stop "pip could not install requirements/cpu.txt (see above); check the network or the package index and run make again"
  "$pip" install --quiet --no-deps --no-build-isolation --editable ./kernels --editable .
  .venv/bin/python -c 'import torch' 2>/dev/null ||
    stop "torch does not import: your package index served its CUDA build. Set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels
(the CPU row of the selector on PyTorch's 'Get Started' page), remove .venv, and run make again"
}

install_cuda() {
  say "NVIDIA driver found: installing the CUDA environment"
  .venv/bin/python -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' ||
    stop "Python.h was not found, which Triton compiles against; install your Python's headers, such as the package python3-dev"
  "$pip" install --quiet --no-compile --editable ./kernels --editable '.[cuda,dev]' ||
    stop "pip could not install the CUDA extras (see above); check that the driver supports CUDA 13 and run make again"
  "$pip" install --quiet --only-binary=:all: --pre flash-attn-4 2>/dev/null ||
    say "flash-attn-4 could not be installed; torch's own FlashAttention 2 is used instead"
}

command -v cc >/dev/null || command -v gcc >/dev/null || stop "no C compiler was found; install one, such as the package build-essential"
[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv || stop "python could not create .venv; on Debian, install the package python3-venv"
pip=.venv/bin/pip
export PIP_DISABLE_PIP_VERSION_CHECK=1
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then install_cuda; else install_cpu; fi
touch .venv/stamp
say "done"
