"""Choose the prompts to train on by their measured pass rates; record which were dropped, with a picture of before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polaris.data.pass_rates import PassRates
from polaris.data.selection import Passes, Reason, check_informative, histogram, informative, prompts_to_drop
from polaris.files import write_atomically
from polaris.results import Result
from polaris.sampling.context import SamplingContext
from polaris.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """`prompts` are kept, in their order; `dropped` has the reasons of others. `before`, `after` [n + 1] count prompts at 0/n .. n/n."""

    prompts: tuple[Prompt, ...]
    dropped: dict[str, Reason]
    before: list[int]
    after: list[int]


def curate_prompts(context: SamplingContext, prompts: Sequence[Prompt], measured: PassRates, folder: Path) -> Curation:
    """Apply `[curation]` to the measured pass rates: a function of configuration, prompts and pass rates alone, the same on every rank.

    Writes `curation.json` and `curation.png` into `folder`.

    Raises:
        CurationError: the set cannot be given the shape, or too few prompts teach something; nothing is written.
    """
    config, samples = context.config, context.config.difficulty.samples_per_prompt
    counts = measured.counts
    before = {prompt.id: counts[prompt.id] for prompt in prompts}
    dropped = prompts_to_drop(before, samples, config.curation, config.seed)
    check_informative(before, dropped, samples, config.trainer.prompts_per_step, stopped_early=config.difficulty.stop_early)
    after = {key: passes for key, passes in before.items() if key not in dropped}
    curation = Curation(
        prompts=tuple(prompt for prompt in prompts if prompt.id in after),
        dropped=dropped,
        before=histogram(before.values(), samples),
        after=histogram(after.values(), samples),
    )
    content = {
        "settings": {**asdict(config.curation), "histogram": list(config.curation.histogram), "seed": config.seed},
        "before": _numbers(before, curation.before),
        "after": _numbers(after, curation.after),
        "dropped": dropped,
    }
    reasons = ", ".join(f"{size} {reason}" for reason, size in sorted(Counter(dropped.values()).items()))
    context.console.note(f"curation: {len(after)} of {len(before)} prompts left (dropped: {reasons or 'none'})")
    result = Result(folder / "curation.json")
    if context.world.is_main and result.read() != content:
        from polaris.observe.charts import difficulty, png

        write_atomically(result.path.with_suffix(".png"), png(difficulty(curation.before, curation.after)))
        result.write(content)
    return curation


def _numbers(measured: Mapping[str, Passes], bins: Sequence[int]) -> dict[str, Any]:
    samples = len(bins) - 1
    verdicts = sum(count for _, count in measured.values())
    return {
        "prompts": len(measured),
        "histogram": {f"{k}/{samples}": size for k, size in enumerate(bins)},
        "informative": informative(measured.values()),
        "accuracy": sum(passed for passed, _ in measured.values()) / max(1, verdicts),
    }
