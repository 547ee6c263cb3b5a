"""The difficulty pass: how often the model that is to be trained solves each prompt, before any training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polaris.config.schema import RunConfig
from polaris.data.curate import informative
from polaris.data.ledger import Ledger
from polaris.data.prompt import Prompt
from polaris.observe.phrases import count, duration
from polaris.recipe.measured import Journal, Measured, numbers, read_passes, save_measured
from polaris.recipe.results import check_settings, digest, read_result, write_result
from polaris.rollout.types import Sampling
from polaris.trainer.breaker import MOST_KILLED, GradingFailed
from polaris.trainer.collect import Draw, draw_rollouts, judge
from polaris.trainer.rooms import EngineRooms

WAVES = 4
"""Responses of a chunk, in multiples of what the engines decode together: the price of a kill, and the engines idle at its end."""


def measure_difficulty(rooms: EngineRooms, prompts: Sequence[Prompt], folder: Path) -> Ledger:
    """Pass rates of the prompts under the weights that the engine serves, on every rank; read where `folder` or the set has them.

    Writes `difficulty.parquet` (one row per prompt) and `difficulty.json` (numbers) into `folder`. The finished chunks of an
    interrupted pass are in `difficulty.partial.jsonl` and are not drawn again. A response's seed is a function of the run's seed,
    the prompt's id and the sample's number, and chunks are cut from the prompts' order, so a resumed pass ends with the same pass
    rates as an uninterrupted one.

    Raises:
        GenerationInterrupted: a stop was requested; the finished chunks are on disk.
        GradingFailed: more than 1 % of a chunk's responses killed their grading process.
        ValueError: `folder` holds a pass with other settings.
    """
    settings, path = pass_settings(rooms.config, prompts), folder / "difficulty.json"
    result = read_result(path, "settings")
    if result is None and rooms.config.difficulty.column:
        _finish(rooms, path, settings, [_published(prompt) for prompt in prompts], 0.0)
    elif result is None:
        _run(rooms, prompts, settings, path)
    else:
        check_settings(path, result["settings"], settings)
    ledger = Ledger()
    for prompt_id, (passed, verdicts) in read_passes(path.with_suffix(".parquet")).items():
        ledger.add_offline(prompt_id, passed, verdicts)
    return ledger


def pass_settings(config: RunConfig, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What the outcome depends on."""
    if config.difficulty.column:
        return {
            "column": config.difficulty.column,
            "prompts": len(prompts),
            "digest": digest(prompts),
            "samples_per_prompt": config.difficulty.samples_per_prompt,
        }
    return {
        "model": config.model.path,
        "revision": config.model.revision,
        "prompts": len(prompts),
        "digest": digest(prompts),
        "samples_per_prompt": config.difficulty.samples_per_prompt,
        "temperature": config.difficulty.temperature,
        "max_response_tokens": _sampling(config).max_tokens,
        "require_thinking": config.reward.require_thinking,
        "seed": config.seed,
    }


def _run(rooms: EngineRooms, prompts: Sequence[Prompt], settings: dict[str, Any], path: Path) -> None:
    journal = Journal(path.with_suffix(".partial.jsonl"), settings, write=rooms.world.is_main)
    rows = journal.rows
    for chunk in _chunks(rooms, prompts):
        if all(prompt.id in rows for prompt in chunk):
            continue
        start = time.monotonic()
        with rooms.console.phase("difficulty", in_step=False):
            measured = _measure(rooms, chunk)
        journal.append(measured, time.monotonic() - start)
        rows |= {row.id: row for row in measured}
        rooms.console.note(_progress(list(rows.values()), len(prompts), journal.seconds))
    _finish(rooms, path, settings, [rows[prompt.id] for prompt in prompts], journal.seconds)


def _finish(rooms: EngineRooms, path: Path, settings: dict[str, Any], rows: Sequence[Measured], seconds: float) -> None:
    """Write the results, the rows in the prompts' order."""
    rooms.world.barrier()
    if rooms.world.is_main:
        samples = rooms.config.difficulty.samples_per_prompt
        save_measured(path.with_suffix(".parquet"), rows, samples)
        write_result(path, {"settings": settings, **numbers(rows, samples, seconds)})
        path.with_suffix(".partial.jsonl").unlink(missing_ok=True)
    rooms.world.barrier()


def _published(prompt: Prompt) -> Measured:
    assert prompt.passes is not None
    passed, count = prompt.passes
    return Measured(id=prompt.id, passed=passed, count=count, lost=0, tokens=0, clipped=0)


def _chunks(rooms: EngineRooms, prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    rollout = rooms.config.rollout
    together = rooms.world.size // rollout.tensor_parallel * rollout.max_concurrent
    size = max(1, WAVES * together // rooms.config.difficulty.samples_per_prompt)
    return (prompts[start : start + size] for start in range(0, len(prompts), size))


def _measure(rooms: EngineRooms, chunk: Sequence[Prompt]) -> list[Measured]:
    """The chunk's prompts on every rank; responses stay where they were drawn."""
    samples = rooms.config.difficulty.samples_per_prompt
    rollouts = draw_rollouts(rooms, Draw(prompts=chunk, samples=samples, sampling=_sampling(rooms.config), stream="difficulty", step=0))
    _, verdicts = judge(rooms, rollouts, chunk)
    mine = []
    for start in range(0, len(rollouts), samples):
        group = list(zip(rollouts, verdicts, strict=True))[start : start + samples]
        lost = sum(verdict.lost for _, verdict in group)
        mine.append(
            Measured(
                id=chunk[group[0][0].key[0]].id,
                passed=sum(verdict.kind == "correct" for _, verdict in group),
                count=samples - lost,
                lost=lost,
                tokens=sum(len(rollout.tokens) for rollout, _ in group),
                clipped=sum(rollout.finish_reason == "length" for rollout, _ in group),
            )
        )
    measured = rooms.world.gather(mine)
    _stop_if_grading_fails(measured, len(chunk) * samples)
    return measured


def _stop_if_grading_fails(measured: Sequence[Measured], responses: int) -> None:
    lost = sum(row.lost for row in measured)
    if lost > max(1, MOST_KILLED * responses):
        raise GradingFailed(
            f"{lost} of {responses} responses killed their grading process, so their prompts' difficulty would be wrong; "
            "raise reward.timeout_s, or lower reward.workers if the machine is overloaded"
        )


def _sampling(config: RunConfig) -> Sampling:
    first = config.stages[0].max_response_tokens or config.rollout.max_response_tokens
    return Sampling(temperature=config.difficulty.temperature, max_tokens=config.difficulty.max_response_tokens or first)


def _progress(rows: Sequence[Measured], total: int, seconds: float) -> str:
    share = informative((row.passed, row.count) for row in rows) / len(rows)
    tokens = sum(row.tokens for row in rows)
    left = seconds * (total - len(rows)) / len(rows)
    return (
        f"difficulty: {len(rows)}/{total} prompts, {share:.0%} solved sometimes, {count(tokens)} tokens, "
        f"{count(tokens / seconds)} tokens/s, ~{duration(left)} left"
    )
