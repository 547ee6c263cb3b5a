"""The difficulty pass: how often the model that is to be trained solves each prompt, before any training."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polaris.config.recipe import CurationConfig
from polaris.config.schema import RunConfig
from polaris.data.digest import digest, fingerprint
from polaris.data.pass_rates import PassRates, read_passes
from polaris.data.selection import informative, shuffle_key
from polaris.embedded import resolve
from polaris.evaluation.estimate import pace_of_run
from polaris.model.identity import model_identity, model_settings
from polaris.model.load import locate_model
from polaris.observe.early import Early
from polaris.observe.phrases import ceiling, count, left_out
from polaris.recipe.estimate import remaining
from polaris.recipe.measured import Journal, Measured, missing, numbers, save_measured
from polaris.recipe.rounds import measure, round_of
from polaris.results import Result
from polaris.reward import no_answer
from polaris.reward.rewards import identity
from polaris.rollout.types import GenerationInterrupted
from polaris.sampling.context import SamplingContext
from polaris.sampling.guards import MOST_KILLED, GradingFailed, no_answers
from polaris.types import Prompt

WAVES = 4
"""Responses of a chunk's first round, in multiples of what the engines decode together: a kill costs them, and engines idle at its end."""


def measure_difficulty(context: SamplingContext, prompts: Sequence[Prompt], folder: Path) -> PassRates:
    """Pass rates of the prompts with the weights that the engine serves, on every rank. They are read if `folder` or the set has them.

    Writes `difficulty.parquet` (one row per prompt) and `difficulty.json` (numbers) into `folder`. An interrupted pass keeps what it
    has measured in `difficulty.partial.jsonl`: its finished chunks, and of the chunk it was stopped in, the prompts whose samples were all
    complete. These are not drawn again. A response's seed is a function of the run's seed, the prompt's id and the sample's number,
    so a resumed pass ends with the same pass rates as an uninterrupted one. The order of the prompts is random, so that any part of the
    pass says what the rest will be like, and cost.

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
        "stop_early": _bounds(config.curation) if config.difficulty.stop_early else None,
        "max_response_tokens": config.difficulty_tokens,
        "require_thinking": config.reward.require_thinking,
        **identity(config.reward),
        "seed": config.seed,
    }


def _bounds(curation: CurationConfig) -> dict[str, float | None]:
    return {"drop_from": curation.drop_from, "drop_up_to": curation.drop_up_to}


def _run(context: SamplingContext, prompts: Sequence[Prompt], result: Result) -> None:
    partial = result.path.with_suffix(".partial.jsonl")
    journal = Journal(partial, result.depends_on, write=context.world.is_main)
    rows, config = journal.rows, context.config
    context.console.note(f"difficulty pass: {_before(config, len(prompts), journal)}")
    early = Early(_heard(context, len(prompts)), config.difficulty_tokens, silent=bool(rows))
    for chunk in _chunks(context, prompts):
        wanted = [prompt for prompt in chunk if prompt.id not in rows]
        if not wanted:
            continue
        start = time.monotonic()
        with context.console.phase("difficulty", in_step=False):
            measured = measure(context, wanted, early)
        early.silence()
        _stop_if_grading_fails(measured, len(chunk) * round_of(config))
        rows |= {row.id: row for row in measured}
        _stop_without_answers(context, prompts, rows.values(), partial)
        if measured:
            journal.append(measured, time.monotonic() - start)
            context.console.note(f"difficulty: {_progress(rows.values(), len(prompts), journal.seconds)}")
        if len(measured) < len(wanted):
            raise GenerationInterrupted
    _finish(context, result, [rows[prompt.id] for prompt in prompts], journal.seconds)


def _before(config: RunConfig, prompts: int, journal: Journal) -> str:
    """What is known before anything is drawn: what an earlier call has measured, or the most there can be and the model's own pace."""
    if journal.rows:
        return f"goes on after {_progress(journal.rows.values(), prompts, journal.seconds)}"
    samples, longest = config.difficulty.samples_per_prompt, config.difficulty_tokens
    pace = pace_of_run(config.model.path)
    known = f"; {pace.said(prompts * samples, longest)}" if pace else ""
    return f"{prompts:,} prompts, {ceiling(prompts, samples, longest)}{known}; what it really takes is estimated after each chunk"


def _heard(context: SamplingContext, prompts: int) -> int:
    """Responses that this rank hears of at most: those of its engine, or all where engines have ranks of their own."""
    responses = prompts * context.config.difficulty.samples_per_prompt
    return responses if context.world.engines else -(-responses // context.engines)


def _finish(context: SamplingContext, result: Result, rows: Sequence[Measured], seconds: float | None) -> None:
    """Write the results, the rows in the prompts' order; without `seconds` nothing was drawn."""
    context.world.barrier()
    if context.world.is_main:
        samples = context.config.difficulty.samples_per_prompt
        save_measured(result.path.with_suffix(".parquet"), rows, drawn=seconds is not None)
        found = numbers(rows, samples, seconds)
        result.write({"settings": result.depends_on, **found})
        if fewer := left_out(found):
            context.console.note(f"difficulty: {found['responses']:,} responses drawn, at most {samples} to each prompt; {fewer}")
        result.path.with_suffix(".partial.jsonl").unlink(missing_ok=True)
    context.world.barrier()


def _published(prompt: Prompt) -> Measured:
    assert prompt.passes is not None
    passed, count = prompt.passes
    return Measured(id=prompt.id, passed=passed, count=count, lost=0, tokens=0, clipped=0)


def _chunks(context: SamplingContext, prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    rollout = context.config.rollout
    together = context.engines * rollout.max_concurrent
    size = max(1, WAVES * together // round_of(context.config))
    shuffled = sorted(prompts, key=lambda prompt: shuffle_key(context.config.seed, prompt.id))
    return (shuffled[start : start + size] for start in range(0, len(prompts), size))


def _stop_if_grading_fails(measured: Sequence[Measured], first: int) -> None:
    """The share is that of the whole chunk's `first` round at least, also if only a part of it was measured: two bad responses must not
    stop a small part."""
    lost, responses = sum(row.lost for row in measured), max(first, sum(row.responses for row in measured))
    if lost > max(1, MOST_KILLED * responses):
        raise GradingFailed(
            f"{lost} of {responses} responses killed their grading process, so their prompts' difficulty would be wrong; "
            "raise reward.timeout_s, or lower reward.workers if the machine is overloaded; mend a reward that raised, as the warning says"
        )


def _stop_without_answers(context: SamplingContext, prompts: Sequence[Prompt], rows: Collection[Measured], partial: Path) -> None:
    """Raise `NoAnswers` if no response so far has an answer, and delete what was kept of the pass."""
    if not rows or any(sum(row.no_answer.values()) < row.responses for row in rows):
        return
    context.world.barrier()
    if context.world.is_main:
        partial.unlink(missing_ok=True)
    raise no_answers("difficulty pass", missing(rows), prompts, context.config, context.config.difficulty_tokens)


def _progress(rows: Collection[Measured], total: int, seconds: float) -> str:
    share = informative((row.passed, row.count) for row in rows) / len(rows)
    tokens = sum(row.tokens for row in rows)
    lacking = missing(rows)
    return (
        f"{len(rows)}/{total} prompts, {share:.0%} solved sometimes, {count(tokens)} tokens, "
        f"{count(tokens / seconds)} tokens/s; {remaining(rows, total - len(rows), seconds)}"
        + (f"; responses without an answer: {no_answer.in_words(lacking)}" if lacking else "")
    )
