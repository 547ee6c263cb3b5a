"""Bytes on each GPU, in host memory and on disk, by what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from polaris.plan.activations import Layer, layer, stored, working
from polaris.plan.cards import GIB
from polaris.plan.setup import Setup

RESERVE = 3 * GIB
"""CUDA contexts of torch and vLLM, NCCL's buffers, CUDA graphs and fragmentation."""
CHUNK = 1.05e9
"""Bytes of logits that the fused head has at a time (kernels/polaris_kernels/linear_policy_loss/README.md)."""
ENGINE_RESERVE = 3 * GIB // 2
"""What vLLM takes of its share beside weights, cache and the tokens of one step: non-torch memory and CUDA graphs."""
BATCHED = 8192
"""Tokens of a step of vLLM, prompts included (polaris/rollout/vllm_setup.py)."""
PROCESS = 8 * GIB
"""Host memory of a rank's process with CUDA's libraries, torch and vLLM, without anything below."""
PER_TOKEN = 40
"""Host bytes of a sampled token on a rank: ids, log-probs and versions, as drawn, gathered and packed."""

MOMENTS = {"device": 8.0, "8bit": 2 * (1 + 4 / 256), "host": 8.0}
"""Bytes of a parameter's two moments: float32, or a byte and its part of a block's scale. The compiled step (of a CPU; a GPU's was not
looked at) has both in float32 for one tensor at a time, which is less than the end of the backward has needed for embedding and head."""

PINNED = 1.2
"""What rounding up to powers of two adds to the pinned tensors of a model."""

Parts = dict[str, float]
"""Bytes by what they are for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """vLLM's share of a GPU. `sequences`: of the longest length, how many its cache holds at once."""

    weights: float
    working: float
    cache: float
    per_token: float

    @property
    def tokens(self) -> int:
        return max(0, int(self.cache / self.per_token))

    def sequences(self, length: int) -> float:
        return self.tokens / length


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Each phase's parts on the GPU where it takes most; host memory of a node; disk of one checkpoint."""

    update: Parts
    sampling: Parts
    engine: Engine | None
    host: Parts
    disk: float

    @property
    def peak(self) -> float:
        """Bytes of the phase that takes more, on a rank that trains."""
        return max(sum(self.update.values()), sum(self.sampling.values()))


def memory_of(setup: Setup) -> Memory:
    return Memory(update=update_of(setup), sampling=sampling_of(setup), engine=engine_of(setup), host=host_of(setup), disk=disk_of(setup))


def state_of(setup: Setup, gradients: bool) -> Parts:
    """Weights, moments and, if there are any, gradients in float32 on a rank's device, between passes. Frozen weights are in the compute
    dtype."""
    shape, shards = setup.shape, setup.shards
    frozen = setup.itemsize * shape.parameters / shards if setup.adapters else 0
    trained = setup.trained / shards
    if setup.optimizer == "host":  # copies add up partly reduced gradients on their devices until the update's last pack
        return {"weights, gradients, moments": 4 * trained if gradients and setup.replicas > 1 else 0.0}
    found = {"weights": 4 * trained + frozen, "moments": MOMENTS[setup.optimizer] * trained}
    return found | ({"gradients": 4 * trained} if gradients else {})


def update_of(setup: Setup) -> Parts:
    """Bytes on a rank's device at the largest of the moments of an update."""
    one = layer(setup.shape, setup.fused, setup.itemsize, setup.sequence_parallel)
    moments = [_head(setup, one), *_first_backward(setup, one), _end(setup)]
    moments += _last_backward(setup, one) if setup.one_pack else []
    return max(moments, key=lambda parts: sum(parts.values())) | {"reserve": RESERVE}


def _gathered(setup: Setup, gradients: bool) -> Parts:
    """What FSDP has gathered for embedding, norm, head and the layers in work, and what it reduces. Copies of shards in host memory come in
    float32 and are cast."""
    shape, n, size = setup.shape, setup.shards, setup.itemsize
    layers = shape.layers if not setup.reshard else 2
    weights = size * (shape.outside + layers * shape.layer) + (size * shape.layer if n > 1 else 0)
    reduced = 4 * shape.layer if gradients and not setup.adapters else 0
    travelling = 4 * 2 * shape.layer / n if setup.optimizer == "host" else 0
    return {"gathered weights": weights + travelling, "gradients being reduced": reduced + (travelling if gradients else 0)}


def _checkpoints(setup: Setup, one: Layer) -> float:
    return setup.itemsize * setup.pack * stored(setup, one)


def _head(setup: Setup, one: Layer) -> Parts:
    """The head's forward, which has the gradients already: all layers' activations wait."""
    shape, size = setup.shape, setup.itemsize
    summed = 0 if setup.adapters else 4 * shape.head
    states = 4 * shape.hidden * size * setup.pack  # of the last layer, normalised, of the trained tokens, and the latter's gradient
    chunk = min(CHUNK, size * setup.pack * shape.vocabulary)
    parts = state_of(setup, not setup.one_pack) | _gathered(setup, False)
    return parts | {"activations kept": _checkpoints(setup, one), "head": summed + chunk + states}


def _first_backward(setup: Setup, one: Layer) -> list[Parts]:
    """The last layer's backward, which is the first: the others' activations wait."""
    return [_backward(setup, tokens, grads, _checkpoints(setup, one), not setup.one_pack) for tokens, grads in _turns(setup, one)]


def _last_backward(setup: Setup, one: Layer) -> list[Parts]:
    """The first layer's, where the gradients of all other layers have come to be; its own and those of embedding and head have not."""
    own, shape = _checkpoints(setup, one) / setup.shape.layers, setup.shape
    moments = [_backward(setup, tokens, grads, own, True) for tokens, grads in _turns(setup, one)]
    missing = 0 if setup.adapters else 4 * (shape.layer + shape.outside) / setup.shards
    return [parts | {"gradients": parts["gradients"] - missing} if "gradients" in parts else parts for parts in moments]


def _turns(setup: Setup, one: Layer) -> list[tuple[float, float]]:
    """Numbers per token, and numbers of weight gradients there are, in the MLP's backward and in attention's."""
    shape, (mlp, attention) = setup.shape, working(setup, one)
    down, whole = shape.hidden * shape.inner, shape.layer
    return [(mlp, 0 if setup.adapters else down), (attention, 0 if setup.adapters else whole - 2 * shape.hidden * shape.query)]


def _backward(setup: Setup, per_token: float, gradients: float, kept: float, all_gradients: bool) -> Parts:
    size = setup.itemsize
    head = 0 if setup.adapters else size * setup.shape.head
    return (
        state_of(setup, all_gradients)
        | _gathered(setup, True)
        | {
            "activations kept": kept,
            "activations of a layer": size * (setup.pack * per_token + gradients),
            "head": head,
        }
    )


def _end(setup: Setup) -> Parts:
    """The end of a backward: the gradients of embedding and head are reduced in float32, all at once."""
    outside = setup.shape.outside
    if setup.adapters:
        return state_of(setup, True)
    travelling = 4 * outside / setup.shards
    return state_of(setup, True) | {
        "gathered weights": setup.itemsize * outside,
        "gradients being reduced": (4 + setup.itemsize) * outside + travelling,
    }


def sampling_of(setup: Setup) -> Parts:
    """Bytes on a trainer's device while engines sample: its state, without gradients, and the engine's share if it is there."""
    parts = state_of(setup, False)
    if setup.engine == "colocated":
        parts |= {"engine": setup.fraction * setup.card.gib * GIB}
    if setup.engine == "transformers":
        parts |= {"engine": setup.itemsize * setup.shape.parameters}
    return parts | {"reserve": RESERVE}


def engine_of(setup: Setup) -> Engine | None:
    """How vLLM's share of a GPU is divided; None without vLLM."""
    if setup.engine not in ("colocated", "separate"):
        return None
    shape, parallel, size = setup.shape, setup.tensor_parallel, setup.itemsize
    share = setup.fraction * setup.card.gib * GIB
    weights = (setup.weight * shape.layers * shape.layer + size * shape.outside) / parallel
    logits = 3 * 4 * setup.max_concurrent * shape.vocabulary / parallel
    work = size * BATCHED * (3 * shape.inner / parallel + 4 * shape.hidden) + logits + ENGINE_RESERVE
    key = max(shape.key / parallel, shape.query / shape.heads)  # a GPU has one key-value head at least
    per_token = 2 * size * shape.layers * key
    return Engine(weights=weights, working=work, cache=max(0.0, share - weights - work), per_token=per_token)


def host_of(setup: Setup) -> Parts:
    """Bytes of a node's host memory. vLLM's sleep drops its weights, which the next sync brings; those beside adapters are kept there.

    Pinned memory comes in powers of two: activations of a layer are rounded up to one, and what it adds to weights and gradients of every
    size is `PINNED` (1.07 to 1.2 for 32B to 4B over eight ranks).
    """
    shape, ranks = setup.shape, setup.gpus
    share = ranks / setup.shards  # of what all shards of one copy hold
    found: Parts = {"processes": ranks * PROCESS}
    if setup.optimizer == "host":
        frozen = setup.itemsize * shape.parameters if setup.adapters else 0
        found["weights, gradients, moments"] = PINNED * (16 * setup.trained + frozen) * share
    if setup.activations == "offload":
        found["activations"] = ranks * shape.layers * 2 ** ceil(log2(setup.itemsize * setup.pack * shape.hidden))
    if setup.engine == "transformers" or setup.served_apart:
        found["engine asleep"] = ranks * setup.itemsize * shape.parameters
    if setup.reference and not setup.adapters:  # without its adapters the policy is its own reference
        found["reference"] = setup.itemsize * shape.parameters * share
    if setup.staged:
        found["copy for checkpoints"] = (4 + MOMENTS[setup.optimizer]) * setup.trained * share
    tokens = setup.prompts * setup.samples * (setup.prompt + setup.mean_share * max(stage.response for stage in setup.stages))
    found["rollouts"] = ranks * PER_TOKEN * tokens
    return found


def disk_of(setup: Setup) -> float:
    """Bytes of one checkpoint: float32 weights and moments, however they are kept, of what is trained, once."""
    return 12.0 * setup.trained
