"""The whole configuration of a run: one frozen dataclass per section. Importing this file needs only the standard library.

Every value has a default that suits a long run on GPUs; a TOML file and `--section.key=value` overrides change them
(`polaris.config.load`). A section checks the bounds of its own values; `RunConfig` checks what concerns two sections at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal

from polaris.config.bounds import at_least, at_most, finite, positive
from polaris.config.recipe import CurationConfig, DifficultyConfig, EvalConfig, FinalConfig, ProbeConfig, RopeConfig, StageConfig
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which checkpoint is trained, and how its numbers are computed."""

    path: str = "Qwen/Qwen3-4B"
    """Checkpoint folder, Hugging Face model name, or `embedded:model`."""
    revision: str | None = None
    """Commit hash or tag on the Hugging Face hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Compute dtype of forward, backward and rollout; parameters and optimizer state are always float32."""
    gradient_checkpointing: bool = True
    """Recompute each layer's activations in the backward pass."""
    fused_modules: bool = True
    """On CUDA, run Liger's RMSNorm, SwiGLU and rope in place of the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The prompts that training draws from."""

    path: str = "POLARIS-Project/Polaris-Dataset-53K"
    """Prompt set: .parquet, .json or .jsonl file, Hugging Face dataset name, a set of the paper such as `aime24`, or `embedded:train`."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    prompt_suffix: str = ""
    """Text appended to the user's message after one space, unless it ends with it already."""
    max_prompt_tokens: int = 1024
    """Longer prompts (after the chat template) are dropped and counted."""
    chat_template_options: dict[str, bool | str] = field(default_factory=dict)
    """Extra arguments of the chat template, such as `enable_thinking = true`."""
    strict: bool = False
    """A row whose answer no response could be compared with stops the run; otherwise it is dropped, counted and named."""
    decontaminate: tuple[str, ...] = ()
    """Evaluation sets (as `data.path`, or folders of files; other hub names read `eval.split`); prompts that are also there are dropped."""

    def __post_init__(self) -> None:
        at_least("data", 1, max_prompt_tokens=self.max_prompt_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """How training samples responses, and the engine that draws them; evaluation and the difficulty pass use the same engine."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """`auto` takes vLLM where it is installed."""
    samples_per_prompt: int = 8
    """Responses to each prompt of a step, which make its group; 2 at least."""
    temperature: float = 1.0
    """Training samples from softmax(logits / temperature) and nothing else: the policy that the loss differentiates."""
    max_response_tokens: int = 8192
    """Longest response in tokens; a longer one is cut off."""
    top_p: float = 1.0
    """Refused below 1: training samples from the policy that the loss differentiates. `polaris eval` and `[final]` may truncate."""
    top_k: int = -1
    """Refused unless -1 (all tokens), as top_p."""
    min_p: float = 0.0
    """Refused above 0, as top_p."""
    repetition_penalty: float = 1.0
    """Refused unless 1 (no penalty), as top_p."""
    tensor_parallel: int = 1
    """Ranks that share one vLLM engine."""
    max_concurrent: int = 256
    """Sequences that one engine decodes together."""
    gpu_memory_fraction: float = 0.8
    """Share of the GPU's memory for vLLM's weights and KV cache (CUDA only)."""
    kv_cache_mib: int = 256
    """Size of the KV cache of one engine (CPU only)."""

    def __post_init__(self) -> None:
        at_least(
            "rollout",
            1,
            samples_per_prompt=self.samples_per_prompt,
            max_response_tokens=self.max_response_tokens,
            tensor_parallel=self.tensor_parallel,
            max_concurrent=self.max_concurrent,
            kv_cache_mib=self.kv_cache_mib,
        )
        at_most("rollout", 65536, max_concurrent=self.max_concurrent)
        if not self.temperature > 0:
            raise Refused(f"rollout.temperature = {self.temperature} must be above 0: training needs samples, not greedy text")
        if not 0 < self.gpu_memory_fraction < 1:
            raise Refused(f"rollout.gpu_memory_fraction = {self.gpu_memory_fraction} must lie between 0 and 1")
        changed = [
            name
            for name, neutral in (("top_p", 1.0), ("top_k", -1), ("min_p", 0.0), ("repetition_penalty", 1.0))
            if getattr(self, name) != neutral
        ]
        if changed:
            raise Refused(
                f"rollout.{', rollout.'.join(changed)} would make the sampled distribution differ from the policy that the loss "
                "differentiates; remove it (evaluation may truncate, training may not)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """How answers are graded."""

    workers: int | None = None
    """Grading processes per rank; by default one per two of the CPU cores that a rank of the machine has, at most 16."""
    timeout_s: float = 5.0
    """Longest time for one answer; then its worker is killed and replaced."""
    require_thinking: bool | Literal["auto"] = "auto"
    """A response without `</think>` has no answer; `auto`: where the chat template opens thinking, or else most of the model's own
    responses do. What stands in front of `</think>` counts in no case."""

    def __post_init__(self) -> None:
        positive("reward", workers=self.workers, timeout_s=self.timeout_s)
        at_most("reward", 1024, workers=self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmConfig:
    """From verdicts to the loss: advantages, clipping, importance correction, and which groups take part."""

    loss: Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo"] = "dapo"
    """Each is defined in `polaris_kernels.policy_loss`. `dapo` averages over the tokens of the batch, `grpo` over each response first,
    `dr_grpo` over the longest length; `gspo` has one ratio per response; `cispo` clips the weight, not the gradient."""
    clip_low: float = 0.2
    """The ratio to the sampling policy is clipped below 1 - clip_low."""
    clip_high: float = 0.28
    """The ratio is clipped above 1 + clip_high; larger than clip_low, it leaves unlikely tokens room to grow (DAPO's clip-higher)."""
    dual_clip: float | Literal["off"] = 3.0
    """dapo: bound on the ratio where the advantage is negative (Ye et al. 2020), or "off"."""
    advantage_scale: Literal["std", "none"] = "std"
    """Divide the group-relative advantage by the group's standard deviation, or not (Dr. GRPO)."""
    correction: Literal["off", "tis", "mask"] = "tis"
    """Engine-to-trainer importance correction: truncated weight, two-sided mask, or none."""
    correction_high: float = 2.0
    """tis: cap of the weight; mask: upper end of the kept interval."""
    correction_low: float = 0.5
    """mask: lower end of the kept interval."""
    substitution: bool = False
    """Groups without variance give their places to copies of informative groups of the same batch."""
    min_informative: float = 0.0
    """Smallest share of informative groups in a batch (the recipe: a third); `scarce` says what happens below it."""
    scarce: Literal["train", "generate", "skip"] = "train"
    """Train on what is there, first draw further prompts of the epoch (at most `max_draws` batches in all), or skip the update."""
    max_draws: int = 3
    """Most batches that one step draws where scarce = "generate", the first one included."""
    rescue: int = 0
    """Newest correct rollouts of earlier epochs kept per prompt; one replaces a failure where all failed. 0 turns it off."""

    def __post_init__(self) -> None:
        at_least("algorithm", 0, clip_low=self.clip_low, clip_high=self.clip_high, min_informative=self.min_informative, rescue=self.rescue)
        at_most("algorithm", 1, min_informative=self.min_informative)
        at_least("algorithm", 1, max_draws=self.max_draws)
        if self.dual_clip != "off" and self.dual_clip <= 1:
            raise Refused(f'algorithm.dual_clip = {self.dual_clip} must be above 1, or "off"')
        if not 0 <= self.correction_low < self.correction_high:
            raise Refused(
                f"algorithm.correction_low = {self.correction_low} must be below algorithm.correction_high = {self.correction_high}"
            )
        if self.rescue > 0 and self.correction == "off":
            raise Refused(
                f"algorithm.rescue = {self.rescue} trains on responses of older weights, which need an importance correction; "
                'set algorithm.correction to "tis" or "mask"'
            )
        if self.scarce != "train" and self.min_informative <= 0:
            raise Refused(
                f'algorithm.scarce = "{self.scarce}" never happens with algorithm.min_informative = 0; set that share, such as 0.3333'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

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
    """How long ranks wait for each other."""

    update_timeout_minutes: float = 30.0
    """Longest time without progress inside an update or a weight sync; then the ranks that hang are named and the run ends."""
    wait_timeout_hours: float = 12.0
    """The same while ranks wait for each other's rollouts, verdicts or files: one response of 90,000 tokens may take an hour."""

    def __post_init__(self) -> None:
        limits = {"update_timeout_minutes": self.update_timeout_minutes, "wait_timeout_hours": self.wait_timeout_hours}
        positive("distributed", **limits)
        at_most("distributed", 10_000, **limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """The proof after every weight sync that the engine serves the trainer's weights."""

    gap_factor: float = 3.0
    """The gap between engine and trainer is measured at start, on responses that the base model samples; after a weight sync, a mean gap
    beyond this multiple of it stops the run."""
    base_tolerance: float | None = None
    """Largest mean gap at start, in nats; by default 3e-4 in float32, 0.25 in half precision."""

    def __post_init__(self) -> None:
        at_least("sync", 1, gap_factor=self.gap_factor)
        positive("sync", base_tolerance=self.base_tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When the run is saved, and how much of it stays on disk."""

    every: int = 10
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Newest complete checkpoints that stay on disk."""

    def __post_init__(self) -> None:
        at_least("checkpoint", 1, every=self.every, keep=self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveConfig:
    """Where a run can be watched besides its console, `metrics.jsonl` and report."""

    tensorboard: bool = True
    """Write TensorBoard event files into `tensorboard/` of the run's folder."""
    wandb_project: str | None = None
    """Weights & Biases project; without it nothing is sent there."""
    samples_per_step: int = 4
    """Full rollouts kept per step in `rollouts/`."""

    def __post_init__(self) -> None:
        at_least("observe", 0, samples_per_step=self.samples_per_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run: one field per section, and what concerns all of them."""

    name: str = "polaris"
    """The run's folder is `<root>/<name>`; starting the same command again resumes it."""
    root: str = "runs"
    """Folder that holds the folders of runs."""
    seed: int = 0
    """Decides the order of prompts and every sample: the same seed on the same machine repeats the run."""
    deterministic: bool = False
    """Only deterministic torch kernels in the trainer; engines choose their own."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    rope: RopeConfig = field(default_factory=RopeConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    curation: CurationConfig = field(default_factory=CurationConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    stage: tuple[StageConfig, ...] = ()
    """Stages of training, in order; none means one of trainer.steps that drops no prompt."""
    final: FinalConfig = field(default_factory=FinalConfig)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.root) / self.name

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages that the run goes through, at least one."""
        return self.stage or (StageConfig(steps=self.trainer.steps, drop_above=1.0),)

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def longest_response(self) -> int:
        """Most tokens that a response has in any phase before the final evaluation."""
        own = self.rollout.max_response_tokens
        lengths = [own if stage.max_response_tokens is None else stage.max_response_tokens for stage in self.stages]
        return max(*lengths, self.difficulty.max_response_tokens or 0)

    def __post_init__(self) -> None:
        plain = self.name not in ("", ".", "..") and "/" not in self.name and len(self.name.encode()) <= 128
        if not plain:
            raise Refused(f"name = {self.name!r} must be a folder name of at most 128 bytes, without '/'")
        at_least("run", 0, seed=self.seed)
        curated = self.difficulty.samples_per_prompt > 0 or self.curation == CurationConfig()
        if not curated:
            raise Refused("[curation] needs pass rates; set difficulty.samples_per_prompt (the recipe: 8), or remove [curation]")
        if self.seed >= 2**63:
            raise Refused(f"seed = {self.seed} must be below 2**63")
        sections = [(section.name, getattr(self, section.name)) for section in fields(self)]
        for name, section in sections + [(f"stage.{index}", stage) for index, stage in enumerate(self.stage)]:
            if is_dataclass(section):
                finite(name, **{key.name: getattr(section, key.name) for key in fields(section)})

    def check_positions(self, most: int) -> None:
        """Raise `Refused` unless prompt and response fit the model's `most` positions."""
        prompt, response = self.data.max_prompt_tokens, self.longest_response
        shorter = [("max_response_tokens", most - prompt), ("data.max_prompt_tokens", most - response)]
        fits = ", ".join(f"{name} to {tokens} or less" for name, tokens in shorter if tokens > 0) or "both to less"
        if prompt + response > most:
            raise Refused(
                f"data.max_prompt_tokens + the longest max_response_tokens = {prompt} + {response} exceeds the model's {most} positions; "
                f"set {fits}, or rope.max_positions to {prompt + response} to go beyond"
            )

    def check_ranks(self, ranks: int) -> None:
        """Raise `Refused` unless ranks, engines, prompts and samples divide into each other."""
        parallel, prompts = self.rollout.tensor_parallel, self.trainer.prompts_per_step
        engines, left = divmod(ranks, parallel)
        if left:
            raise Refused(f"{ranks} ranks do not divide into engines of rollout.tensor_parallel = {parallel} ranks; change one of them")
        if prompts % engines != 0:
            raise Refused(f"trainer.prompts_per_step = {prompts} does not divide over {engines} engines; set it to a multiple of {engines}")
        if self.rollout.samples_per_prompt == 1:
            raise Refused("rollout.samples_per_prompt = 1 leaves nothing to compare within a group; set it to 2 or more")
