"""The difficulty pass: how often the model that is to be trained solves each prompt, before any training."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from polaris.config.schema import RunConfig
from polaris.data.digest import digest, fingerprint
from polaris.data.pass_rates import PassRates
from polaris.data.selection import informative
from polaris.embedded import resolve
from polaris.model.identity import model_identity, model_settings
from polaris.model.load import locate_model
from polaris.observe.phrases import count, duration
from polaris.recipe.measured import Journal, Measured, missing, numbers, read_passes, save_measured
from polaris.recipe.plan import plan_stages
from polaris.results import Result
from polaris.reward import no_answer
from polaris.reward.rewards import identity
from polaris.rollout.types import GenerationInterrupted, Sampling
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, draw_rollouts, judge
from polaris.sampling.guards import MOST_KILLED, GradingFailed, no_answers, show_error
from polaris.types import Prompt, Rollout, Verdict

WAVES = 4
"""Responses of a chunk, in multiples of what the engines decode together: a kill costs them, and the engines idle at its end."""


def measure_difficulty(context: SamplingContext, prompts: Sequence[Prompt], folder: Path) -> PassRates:
    """Pass rates of the prompts with the weights that the engine serves, on every rank. They are read if `folder` or the set has them.

    Writes `difficulty.parquet` (one row per prompt) and `difficulty.json` (numbers) into `folder`. An interrupted pass keeps what it
    has measured in `difficulty.partial.jsonl`: its finished chunks, and of the chunk it was stopped in, the prompts whose samples were all
    complete. These are not drawn again. A response's seed is a function of the run's seed, the prompt's id and the sample's number,
    so a resumed pass ends with the same pass rates as an uninterrupted one.

    Raises:
        GenerationInterrupted: a stop was requested; what is measured is on disk.
        GradingFailed: more than 1 % of a chunk's responses killed their grading process.
        NoAnswers: no response of the first chunk has an answer.
        ValueError: `folder` holds a pass with other settings.
    """
    result = Result(folder / "difficulty.json", pass_settings(context.config, prompts))
    if (content := result.read("settings")) is not None:
        result.refuse_changes(content)
    elif context.config.difficulty.column is not None:
        _finish(context, result, [_published(prompt) for prompt in prompts], None)
    else:
        _run(context, prompts, result)
    pass_rates = PassRates()
    for prompt_id, (passed, verdicts) in read_passes(result.path.with_suffix(".parquet")).items():
        pass_rates.add_offline(prompt_id, passed, verdicts)
    return pass_rates


def pass_settings(config: RunConfig, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What the result depends on; parts of the model's weight files are read for their digest."""
    if config.difficulty.column is not None:
        return {
            "column": config.difficulty.column,
            "prompts": len(prompts),
            "digest": digest(prompts),
            "passes": fingerprint(prompt.passes for prompt in prompts),
            "samples_per_prompt": config.difficulty.samples_per_prompt,
        }
    checkpoint = locate_model(replace(config.model, path=resolve(config.model.path)))
    return {
        **model_settings(config),
        "weights": model_identity(checkpoint.folder)["weights"],
        "prompts": len(prompts),
        "digest": digest(prompts),
        "samples_per_prompt": config.difficulty.samples_per_prompt,
        "temperature": config.difficulty.temperature,
        "max_response_tokens": _sampling(config).max_tokens,
        "require_thinking": config.reward.require_thinking,
        **identity(config.reward),
        "seed": config.seed,
    }


def _run(context: SamplingContext, prompts: Sequence[Prompt], result: Result) -> None:
    partial = result.path.with_suffix(".partial.jsonl")
    journal = Journal(partial, result.depends_on, write=context.world.is_main)
    rows = journal.rows
    for chunk in _chunks(context, prompts):
        wanted = [prompt for prompt in chunk if prompt.id not in rows]
        if not wanted:
            continue
        start = time.monotonic()
        with context.console.phase("difficulty", in_step=False):
            measured = _measure(context, wanted)
        _stop_if_grading_fails(measured, len(chunk) * context.config.difficulty.samples_per_prompt)
        rows |= {row.id: row for row in measured}
        _stop_without_answers(context, prompts, rows.values(), partial)
        if measured:
            journal.append(measured, time.monotonic() - start)
            context.console.note(_progress(list(rows.values()), len(prompts), journal.seconds))
        if len(measured) < len(wanted):
            raise GenerationInterrupted
    _finish(context, result, [rows[prompt.id] for prompt in prompts], journal.seconds)


def _finish(context: SamplingContext, result: Result, rows: Sequence[Measured], seconds: float | None) -> None:
    """Write the results, the rows in the prompts' order; without `seconds` nothing was drawn."""
    context.world.barrier()
    if context.world.is_main:
        samples = context.config.difficulty.samples_per_prompt
        save_measured(result.path.with_suffix(".parquet"), rows, samples, drawn=seconds is not None)
        result.write({"settings": result.depends_on, **numbers(rows, samples, seconds)})
        result.path.with_suffix(".partial.jsonl").unlink(missing_ok=True)
    context.world.barrier()


def _published(prompt: Prompt) -> Measured:
    assert prompt.passes is not None
    passed, count = prompt.passes
    return Measured(id=prompt.id, passed=passed, count=count, lost=0, tokens=0, clipped=0)


def _chunks(context: SamplingContext, prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    rollout = context.config.rollout
    together = context.world.size // rollout.tensor_parallel * rollout.max_concurrent
    size = max(1, WAVES * together // context.config.difficulty.samples_per_prompt)
    return (prompts[start : start + size] for start in range(0, len(prompts), size))


def _measure(context: SamplingContext, prompts: Sequence[Prompt]) -> list[Measured]:
    """Measure the prompts; the result is on every rank. After a stop it holds only prompts whose samples were all complete."""
    samples = context.config.difficulty.samples_per_prompt
    ended: dict[str, list[Rollout]] = {prompt.id: [] for prompt in prompts}
    with suppress(GenerationInterrupted):
        draw_rollouts(
            context,
            Draw(prompts=prompts, samples=samples, sampling=_sampling(context.config), stream="difficulty", step=0),
            on_finished=lambda rollout: ended[rollout.prompt_id].append(rollout),
        )
    rollouts = [rollout for group in ended.values() if len(group) == samples for rollout in group]
    _, verdicts = judge(context, rollouts, prompts, _sampling(context.config).max_tokens)
    show_error(context, zip((rollout.prompt_id for rollout in rollouts), verdicts, strict=True))
    graded = list(zip(rollouts, verdicts, strict=True))
    mine = [_count(graded[start : start + samples]) for start in range(0, len(graded), samples)]
    return context.world.gather(mine)


def _count(group: Sequence[tuple[Rollout, Verdict]]) -> Measured:
    """All samples of one prompt."""
    lost = sum(verdict.lost for _, verdict in group)
    return Measured(
        id=group[0][0].prompt_id,
        passed=sum(verdict.kind == "correct" for _, verdict in group),
        count=len(group) - lost,
        lost=lost,
        tokens=sum(len(rollout.tokens) for rollout, _ in group),
        clipped=sum(rollout.finish_reason == "length" for rollout, _ in group),
        no_answer=no_answer.count(no_answer.reason(verdict, rollout.finish_reason == "length") for rollout, verdict in group),
    )


def _stop_if_grading_fails(measured: Sequence[Measured], responses: int) -> None:
    """`responses` counts the whole chunk, also if only a part of it was measured: two bad responses must not stop a small part."""
    lost = sum(row.lost for row in measured)
    if lost > max(1, MOST_KILLED * responses):
        raise GradingFailed(
            f"{lost} of {responses} responses killed their grading process, so their prompts' difficulty would be wrong; "
            "raise reward.timeout_s, or lower reward.workers if the machine is overloaded; mend a reward that raised, as the warning says"
        )


def _stop_without_answers(context: SamplingContext, prompts: Sequence[Prompt], rows: Collection[Measured], partial: Path) -> None:
    """Raise `NoAnswers` if no response so far has an answer, and delete what was kept of the pass."""
    samples = context.config.difficulty.samples_per_prompt
    if not rows or any(sum(row.no_answer.values()) < samples for row in rows):
        return
    context.world.barrier()
    if context.world.is_main:
        partial.unlink(missing_ok=True)
    raise no_answers("difficulty pass", missing(rows), prompts, context.config, _sampling(context.config).max_tokens)


def _sampling(config: RunConfig) -> Sampling:
    own = config.difficulty.max_response_tokens
    return Sampling(
        temperature=config.difficulty.temperature, max_tokens=plan_stages(config)[0].max_response_tokens if own is None else own
    )


def _progress(rows: Sequence[Measured], total: int, seconds: float) -> str:
    share = informative((row.passed, row.count) for row in rows) / len(rows)
    tokens = sum(row.tokens for row in rows)
    left = seconds * (total - len(rows)) / len(rows)
    lacking = missing(rows)
    return (
        f"difficulty: {len(rows)}/{total} prompts, {share:.0%} solved sometimes, {count(tokens)} tokens, "
        f"{count(tokens / seconds)} tokens/s, ~{duration(left)} left"
        + (f"; responses without an answer: {no_answer.in_words(lacking)}" if lacking else "")
    )
