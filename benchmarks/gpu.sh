#!/usr/bin/env bash
# Everything that wants a GPU, in one call: the GPU tests, then every benchmark. Results go to benchmarks/results/ and, if set, $OUT.
# Needs torch with CUDA, transformers and, in ./.wheels or installed, the other dependencies of pyproject.toml.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD:$PWD/kernels"
[ -d .wheels ] && python3 -m pip install --quiet --no-index --no-deps .wheels/*.whl
python3 -m pytest tests/kernels && python3 -m pytest tests -m gpu
tests=$?
python3 -m pytest benchmarks -m gpu --benchmark-json=benchmark.json && python3 benchmarks/summary.py benchmark.json
benchmarks=$?
[ -n "${OUT:-}" ] && cp benchmarks/results/*-gpu.md "$OUT"
exit $((tests + benchmarks))
