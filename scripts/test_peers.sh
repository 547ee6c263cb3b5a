#!/usr/bin/env bash
# Test polaris_kernels inside each version of verl that it knows, torchtitan, prime-rl (a checkout that PRIME_RL names) and the hub's client;
# TRL is part of the environment and of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=.venv/peers
versions=$(.venv/bin/python -c 'from polaris_kernels.integrations.verl import KNOWN_VERSIONS; print(*KNOWN_VERSIONS)')
for version in $versions; do
  printf 'verl %s\n' "$version"
  if [ ! -d "$peers-verl-$version" ]; then
    rm -rf "$peers-verl-$version.part"
    .venv/bin/pip install --quiet --no-deps --target "$peers-verl-$version.part" "verl==$version"
    mv "$peers-verl-$version.part" "$peers-verl-$version"
  fi
  PYTHONPATH="$peers-verl-$version:$peers" .venv/bin/pytest tests/kernels/test_integration_verl.py tests/algorithm/test_advantage.py tests/learn/test_aggregates.py
done
PYTHONPATH="$peers" .venv/bin/pytest tests/kernels/test_integration_torchtitan.py tests/kernels/test_integration_prime_rl.py tests/scripts/test_package_kernels.py
