#!/usr/bin/env bash
# Everything that wants a GPU, in parts of bounded time; benchmarks/gpu.md has the calls in order. All parts but unpack, or those named:
#
#     OUT=runs/gpu-results bash benchmarks/gpu.sh [unpack] [ceilings] [tests] [kernels] [variants] [step] [loop] [real]     # kernels=120: 120 s of it
#
# Each figure goes to $OUT/results.jsonl the moment it is known, each part's words to $OUT/PART.log. All parts together take BUDGET_S seconds
# (560); what no longer fits is recorded by name. Without a GPU, or with SMALL=1, everything runs at the smallest sizes.
set -uo pipefail
cd "$(dirname "$0")/.."
export OUT="${OUT:-runs/gpu-results}" STARTED="${STARTED:-$(date +%s)}" PYTHONUNBUFFERED=1
export PYTHONPATH="$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
[ $# -gt 0 ] || set -- ceilings tests kernels variants step loop real
status=0
for part in "$@"; do
  # shellcheck disable=SC1091  # the kit's own search paths, once it is unpacked
  [ -f .gpu/env.sh ] && . .gpu/env.sh
  "$python" -m benchmarks.gpu.run "$part" 2>&1 | tee -a "$OUT/${part%%=*}.log" || status=1
done
exit "$status"
