#!/usr/bin/env bash
# Everything that wants a GPU: the GPU tests, the kernels beside peers, their errors, the train step. All of it, or the parts named:
#
#     bash benchmarks/gpu.sh [tests] [kernels] [errors] [step]
#
# Results go to benchmarks/results/, kernels/README.md and, if set, $OUT. Needs torch with CUDA, transformers, pytest and pytest-benchmark;
# wheels in ./.wheels are installed first, and peers are found in ./.peers (pip install --no-deps --target .peers -r requirements/peers.txt).
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD:$PWD/kernels:$PWD/.peers"
[ -d .wheels ] && python3 -m pip install --quiet --no-index --no-deps .wheels/*.whl
results=benchmarks/results
status=0

measure() { # measure PATH...: benchmarks to results
  python3 -m pytest "$@" --benchmark-json=benchmark.json || status=1
  [ -s benchmark.json ] && python3 benchmarks/summary.py benchmark.json
}

for part in "${@:-tests kernels errors step}"; do
  for name in $part; do
    case "$name" in
      tests) python3 -m pytest tests -m gpu || status=1 ;;
      kernels) measure benchmarks/kernels ;;
      errors) python3 benchmarks/kernels/errors.py 256 > "$results/errors_gpu_$(date +%F).md" || status=1 ;;
      step) measure benchmarks/step/test_train_step.py ;;
      *) echo "unknown part $name: tests, kernels, errors or step" >&2; exit 2 ;;
    esac
  done
done
[ -n "${OUT:-}" ] && cp "$results"/*_"$(date +%F)".* kernels/README.md "$OUT"
exit "$status"
