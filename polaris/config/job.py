"""What every job has that makes a run's folder: `polaris train` (`schema.py`) and `polaris sft` (`sft.py`) add sections of their own."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from polaris.config.bounds import at_least, finite
from polaris.config.model import MemoryConfig, ModelConfig, RopeConfig
from polaris.config.training import CheckpointConfig, DistributedConfig, ObserveConfig, OptimizerConfig
from polaris.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Where the run is, which model it trains with which optimizer, and how it is saved and watched."""

    name: str = "polaris"
    """The run's folder is `<root>/<name>`; starting the same command again resumes it."""
    root: str = "runs"
    """Folder that holds the folders of runs."""
    seed: int = 0
    """Decides the order of the data and every sample: the same seed on the same machine repeats the run."""
    deterministic: bool = False
    """Only deterministic torch kernels in the trainer; engines choose their own."""
    model: ModelConfig = field(default_factory=ModelConfig)
    rope: RopeConfig = field(default_factory=RopeConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)

    def check_trainers(self, ranks: int) -> None:
        """Raise `Refused` unless the ranks that train divide into copies of the state and these into ranks that share packs."""
        replicas, sharing = self.distributed.replicas, self.distributed.sequence_parallel
        for key, parts, whole in (("replicas", replicas, ranks), ("sequence_parallel", sharing, ranks // replicas)):
            if whole % parts or not whole:
                of = f" of one of {replicas} replicas" if key != "replicas" and replicas > 1 else ""
                raise Refused(
                    f"distributed.{key} = {parts} does not divide the {whole or ranks} rank{'s' * (whole != 1)}{of} that train; change it, "
                    "or start another number of ranks (torchrun --nproc-per-node)"
                )

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.root) / self.name

    def __post_init__(self) -> None:
        plain = self.name not in ("", ".", "..") and "/" not in self.name and len(self.name.encode()) <= 128
        if not plain:
            raise Refused(f"name = {self.name!r} must be a folder name of at most 128 bytes, without '/'")
        if self.optimizer.name == "adamw8bit" and self.memory.optimizer == "host":
            raise Refused(
                'optimizer.name = "adamw8bit" saves memory of the device, where memory.optimizer = "host" has no moments; set '
                'optimizer.name to "adamw", or memory.optimizer to "device"'
            )
        at_least("run", 0, seed=self.seed)
        if self.seed >= 2**63:
            raise Refused(f"seed = {self.seed} must be below 2**63")
        for section in fields(self):
            values = getattr(self, section.name)
            if is_dataclass(values):
                finite(section.name, **{key.name: getattr(values, key.name) for key in fields(values)})
