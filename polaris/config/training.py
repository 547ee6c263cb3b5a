"""Optimizer, size of a step, ranks, checkpoints, and what a run shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polaris.config.bounds import at_least, at_most, positive
from polaris.config.own_code import DOOR
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

    name: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW with moments in float32, or in blocks of 8 bits with a scale for each 256 values: 2 bytes a parameter in the place of 8, and
    other roundings. The latter needs torchao (`pip install 'polaris-rl[8bit]'`)."""
    lr: float = 1e-6
    """Learning rate after the warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or half a cosine down to min_lr_fraction x lr at the run's last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to lr; 0 begins with lr."""
    min_lr_fraction: float = 0.0
    """Cosine ends at this share of lr."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients, per update."""
    beta2: float = 0.999
    """Decay of AdamW's mean of squared gradients, per update."""
    eps: float = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: float = 0.01
    """Decoupled decay: every update shrinks each weight by lr x weight_decay of it."""
    grad_clip: float = 1.0
    """Largest norm of the gradient over all parameters; a longer gradient is scaled down to it."""

    def __post_init__(self) -> None:
        at_least("optimizer", 0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay, min_lr_fraction=self.min_lr_fraction)
        positive("optimizer", lr=self.lr, eps=self.eps, grad_clip=self.grad_clip)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise Refused(f"optimizer.{name} = {getattr(self, name)} must lie in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """The size of a step, and how it is divided over updates, packs and threads."""

    steps: int = 100
    """Steps of a run without `[[stage]]` tables."""
    prompts_per_step: int = 128
    """Prompts that one step draws over all ranks, each with rollout.samples_per_prompt responses."""
    updates_per_step: int = 1
    """Optimizer updates on one step's rollouts; above 1, proximal log-probs are computed once before the first."""
    tokens_per_pack: int = 32768
    """Tokens of one forward pass on one rank; a single longer sequence gets a pack of its own."""
    max_nonfinite_steps: int = 3
    """Consecutive skipped updates (non-finite loss or gradient) after which the run stops."""
    cpu_threads: int | None = None
    """Threads of each rank's trainer on CPU; by default torch's choice."""

    def __post_init__(self) -> None:
        positive("trainer", cpu_threads=self.cpu_threads)
        at_most("trainer", 1024, cpu_threads=self.cpu_threads)
        at_least(
            "trainer",
            1,
            steps=self.steps,
            prompts_per_step=self.prompts_per_step,
            updates_per_step=self.updates_per_step,
            tokens_per_pack=self.tokens_per_pack,
            max_nonfinite_steps=self.max_nonfinite_steps,
        )
        if self.prompts_per_step % self.updates_per_step != 0:
            raise Refused(
                f"trainer.prompts_per_step = {self.prompts_per_step} does not divide into "
                f"trainer.updates_per_step = {self.updates_per_step}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig:
    """How ranks divide the work, and how long they wait for each other."""

    sequence_parallel: int = 1
    """Neighbouring ranks that share each pack (Ulysses): every one has its part of the tokens, and in attention of the heads."""
    replicas: int = 1
    """Copies of weights and optimizer, each sharded over neighbouring ranks (hybrid sharding). With one on each node, only the gradients
    of an update travel between nodes."""
    reshard: bool = True
    """Free the weights that a layer has gathered after each pass; false keeps them until the end of an update, 2 bytes a parameter in half
    precision, and gathers them once."""
    update_timeout_minutes: float = 30.0
    """Longest time without progress inside an update or a weight sync; then the ranks that hang are named and the run ends."""
    wait_timeout_hours: float = 12.0
    """The same while ranks wait for each other's rollouts, verdicts or files: one response of 90,000 tokens may take an hour."""

    def __post_init__(self) -> None:
        at_least("distributed", 1, sequence_parallel=self.sequence_parallel, replicas=self.replicas)
        limits = {"update_timeout_minutes": self.update_timeout_minutes, "wait_timeout_hours": self.wait_timeout_hours}
        positive("distributed", **limits)
        at_most("distributed", 10_000, **limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When the run is saved, and how much of it stays on disk."""

    every: int = 10
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Newest complete checkpoints that stay on disk."""
    asynchronous: bool = True
    """Write while training goes on, from a copy of the state in host memory: 12 bytes a parameter, divided by the ranks that share a
    state. Training waits for the last one of a stage, and for each where a host has no memory for the copy."""

    def __post_init__(self) -> None:
        at_least("checkpoint", 1, every=self.every, keep=self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveConfig:
    """Where a run can be watched besides its console, `metrics.jsonl` and report."""

    tensorboard: bool = True
    """Write TensorBoard event files into `tensorboard/` of the run's folder."""
    wandb_project: str | None = None
    """Weights & Biases project; without it nothing is sent there."""
    mlflow_experiment: str | None = None
    """MLflow experiment; it goes to MLFLOW_TRACKING_URI, else to `mlflow.db` in the run's folder."""
    trackio_project: str | None = None
    """Trackio project, kept on this machine (`trackio show` opens it)."""
    samples_per_step: int = 4
    """Full rollouts kept per step in `rollouts/`."""
    profile: tuple[int, ...] = ()
    """First and last step, such as [3, 5], of which rank 0 writes torch profiler traces into `profile/` of the run's folder, and on a GPU
    memory snapshots: of update and sync. Such steps are slower."""

    def __post_init__(self) -> None:
        at_least("observe", 0, samples_per_step=self.samples_per_step)
        if self.profile and (len(self.profile) != 2 or not 1 <= self.profile[0] <= self.profile[1]):
            raise Refused(f"observe.profile = {list(self.profile)} must be the first and the last step, such as [3, 5], or be left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksConfig:
    """Code of your own that runs beside the loop."""

    hooks: tuple[str, ...] = field(default=(), metadata=DOOR)
    """Classes as `module:Class` that hear of every step, evaluation and checkpoint (`polaris.observe.hook`), in this order."""
