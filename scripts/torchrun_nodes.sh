#!/usr/bin/env bash
# Train on several nodes that ssh reaches without a password, from this directory, which all of them share:
#   scripts/torchrun_nodes.sh node1,node2 my.toml --name=my-run
# Arguments after the hosts are those of `polaris train`; PROGRAM=polaris.sft fine-tunes. Ctrl-C or SIGTERM saves and ends the run on all
# nodes, and so does the end of this script, whatever it dies of. docs/nodes.md explains it.
set -uo pipefail
if [ $# -lt 2 ] || [[ $1 == -* ]]; then
  echo "usage: $0 HOST,HOST,... CONFIG [--section.key=value ...]" >&2
  exit 2
fi
IFS=, read -ra hosts <<<"$1"
shift

variables=("PATH=$PATH")
for name in $(compgen -e); do
  case $name in NCCL_* | GLOO_* | CUDA_* | TORCH_* | VLLM_* | HF_* | WANDB_* | MLFLOW_* | OMP_NUM_THREADS) variables+=("$name=${!name}") ;; esac
done
options=(
  --nnodes="${#hosts[@]}" --nproc-per-node="${RANKS_PER_NODE:-gpu}" --max-restarts="${MAX_RESTARTS:-1}"
  --master-addr="${MASTER_ADDR:-${hosts[0]}}" --master-port="${MASTER_PORT:-29500}"
)

# A node's torchrun is told to stop when its standard input ends: this script has closed it, or is gone.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2094
mkfifo "$work/pipe" && exec 9<>"$work/pipe" 8>"$work/pipe" 7<"$work/pipe" 9>&- || exit 1
trap 'exec 8>&-' INT TERM USR1

pids=()
for rank in "${!hosts[@]}"; do
  command=$(printf '%q ' env "${variables[@]}" torchrun --node-rank="$rank" "${options[@]}" -m "${PROGRAM:-polaris.train}" "$@")
  (
    # shellcheck disable=SC2029  # expanded here on purpose
    ssh -o BatchMode=yes "${hosts[rank]}" "cd $(printf %q "$PWD") || exit 2
      exec 3<&0
      $command < /dev/null & run=\$!
      { read -r _; kill -TERM \$run; } <&3 > /dev/null 2>&1 & watch=\$!
      wait \$run; status=\$?
      kill \$watch 2> /dev/null
      exit \$status" <&7 8>&-
    status=$?
    echo "$status" >"$work/status-$rank"
    [ "$status" = 0 ] || kill -USR1 $$ # the others save what they can and end
  ) 8>&- &
  pids+=($!)
done
exec 7<&-

stopped=0 failed=''
for rank in "${!pids[@]}"; do
  while kill -0 "${pids[rank]}" 2>/dev/null; do wait "${pids[rank]}"; done # a trap ends `wait` too
  status=$(cat "$work/status-$rank")
  case $status in 0) ;; 143) stopped=143 ;; *) failed=${failed:-$status} ;; esac
done
exit "${failed:-$stopped}"
