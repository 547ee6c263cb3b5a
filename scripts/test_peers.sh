#!/usr/bin/env bash
# Test polaris_kernels inside each version of verl that it knows, torchtitan, prime-rl (a checkout that PRIME_RL names) and the hub's client,
# and the optimizer by torchao, which makes each import of transformers slower; TRL is part of the environment and of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=.venv/peers
folder() { # A package in a folder of its own, installed once.
  if [ ! -d "$peers-$1-$2" ]; then
    rm -rf "$peers-$1-$2.part"
    .venv/bin/pip install --quiet --no-deps --target "$peers-$1-$2.part" "$1==$2"
    mv "$peers-$1-$2.part" "$peers-$1-$2"
  fi
  printf '%s' "$peers-$1-$2"
}
versions=$(.venv/bin/python -c 'from polaris_kernels.integrations.verl import KNOWN_VERSIONS; print(*KNOWN_VERSIONS)')
for version in $versions; do
  printf 'verl %s\n' "$version"
  PYTHONPATH="$(folder verl "$version"):$peers" .venv/bin/pytest tests/kernels/test_integration_verl.py tests/algorithm/test_advantage.py tests/learn/test_aggregates.py
done
PYTHONPATH="$peers" .venv/bin/pytest tests/kernels/test_integration_torchtitan.py tests/kernels/test_integration_prime_rl.py
PYTHONPATH="$peers" .venv/bin/pytest tests/learn/test_eight_bit.py
# Apart from the peers: transformers changes its ways where the hub's client is installed.
PYTHONPATH="$(folder kernels 0.17.2)" .venv/bin/pytest tests/scripts/test_package_kernels.py
