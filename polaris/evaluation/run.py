"""An evaluation from settings to result: keep samples on disk, draw the rest, grade all of them."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polaris.distributed import watch
from polaris.distributed.mesh import World
from polaris.distributed.shared import check_same, check_shared
from polaris.errors import Refused
from polaris.evaluation.contamination import Contamination, accuracy_apart, contamination
from polaris.evaluation.engine_source import EngineSource
from polaris.evaluation.estimate import Estimate, Pace, pace_of_run
from polaris.evaluation.folder import claimed
from polaris.evaluation.markdown import markdown
from polaris.evaluation.page import page
from polaris.evaluation.provenance import hardware, versions
from polaris.evaluation.samples import Key, Sample, SampleFile, mend, read_samples
from polaris.evaluation.scoring import Scored, Scoring, decide_thinking, judged
from polaris.evaluation.server_source import ServerSource
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.source import Hooks, Source, Wanted
from polaris.evaluation.suites import Suite, load_suites
from polaris.evaluation.summary import summarise_suite
from polaris.files import write_atomically
from polaris.observe.console import Console
from polaris.observe.phrases import count
from polaris.observe.progress import progress
from polaris.reward.grade import GRADER_VERSION
from polaris.rollout.types import GenerationInterrupted, request_seed
from polaris.stop import StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The parts of one running evaluation."""

    settings: EvalSettings
    suites: Sequence[Suite]
    source: Source
    overlap: Contamination
    scoring: Scoring
    folder: Path
    world: World
    stop: StopRequest


def evaluate_suites(settings: EvalSettings, folder: Path, world: World, stop: StopRequest) -> dict[str, Any]:
    """Draw, grade and write result.json, result.md and result.html into `folder`; every rank gets the result. A second call resumes.

    Raises:
        ValueError: bad settings, or `folder` holds an evaluation with others.
        GenerationInterrupted: a stop was requested; finished samples are on disk.
        ServerFailed: the server refused a request or could not be reached.
    """
    started = time.monotonic()
    _check_ranks(settings, world)
    check_shared(folder, world)
    with stop.at_once():
        suites = load_suites(settings)
        overlap = contamination(settings, suites)
        source: Source = ServerSource(settings, suites) if settings.server else EngineSource(settings, suites)
        identity = settings.identity() | source.identity()
    identity |= {"sets": {suite.name: {"sha256": suite.sha256} for suite in suites}}
    check_same({"the evaluation's sets, model and settings": json.dumps(identity, sort_keys=True)}, world)
    Console(world.is_main, 0).banner(source.describe() | _describe(suites, folder) | overlap.describe())
    with claimed(folder, identity, world), Scoring(settings.reward, suites) as scoring:
        job = _Job(settings=settings, suites=suites, source=source, overlap=overlap, scoring=scoring, folder=folder, world=world, stop=stop)
        drawn = sum(world.gather([sum(_draw(job, factor) for factor in settings.rope_factors)]))
        if world.any(not scoring.drain(stop.requested)):
            raise GenerationInterrupted
        scored = world.gather(scoring.collect())
        results: list[dict[str, Any]] = []
        if world.is_main:
            last_call = {"seconds": time.monotonic() - started, "samples": drawn}
            thinking = decide_thinking(scored, settings.reward.require_thinking, source.thinking())
            facts = _facts(job, identity) | {"thinking": asdict(thinking), "last_call": last_call}
            scored = judged(scored, thinking)
            results = [facts | {"results": _results(job, scored)}]
            html = page(folder.name, folder, suites, scored, results[0])
            write_atomically(folder / "result.html", html.encode(errors="replace"))
            write_atomically(folder / "result.json", (json.dumps(results[0], indent=2, ensure_ascii=False) + "\n").encode())
            write_atomically(folder / "result.md", markdown(results[0]).encode())
        return world.gather(results)[0]


def _draw(job: _Job, factor: float) -> int:
    """Draw this rank's share of the missing samples and score all of its samples; returns how many it has drawn."""
    world = job.world
    parallel = 1 if job.settings.server else job.settings.rollout.tensor_parallel
    place = job.folder / f"rope-{factor:g}"
    if world.is_main:
        mend(place)
    world.barrier()
    job.scoring.begin()
    wanted = {key: Wanted(key=key, seed=_seed(job.settings, key)) for key in _keys(job.suites)}
    kept: list[int] = []
    for number, sample in enumerate(read_samples(place)):
        known = wanted.pop(sample.key, None)
        kept += [sample.tokens] if known is not None else []
        if known is not None and number % world.size == world.rank:
            job.scoring.submit(factor, sample)
    world.barrier()
    if not wanted:
        return 0
    share = list(wanted.values())[world.rank // parallel :: world.size // parallel]
    leads = world.rank % parallel == 0
    estimate = _estimate(job, factor, len(wanted), share, kept)
    Console(world.is_main, 0).note(estimate.before())
    interrupted = False
    try:
        _draw_share(job, factor, share, SampleFile(place, world.rank) if leads else None, estimate)
    except GenerationInterrupted:
        interrupted = True
    if world.any(interrupted):
        raise GenerationInterrupted
    return len(share) if leads else 0


def _estimate(job: _Job, factor: float, wanted: int, share: Sequence[Wanted], kept: Sequence[int]) -> Estimate:
    """At the pace of the samples that are kept, by their lengths, else of the run that is evaluated."""
    settings = job.settings
    pace = Pace(length=sum(kept) / len(kept), speed=None, source=f"the {len(kept)} that are there") if kept else None
    batch = settings.server.concurrency if settings.server else settings.rollout.max_concurrent
    pace = pace or (None if settings.server else pace_of_run(settings.model.path))
    name = f"YaRN {factor:g}: " if settings.rope_factors != (1.0,) else ""
    live = settings.server is None
    return Estimate(wanted, share, longest=settings.max_response_tokens, batch=batch, pace=pace, live=live, name=name)


def _draw_share(job: _Job, factor: float, wanted: Sequence[Wanted], file: SampleFile | None, estimate: Estimate) -> None:
    """Draw `wanted`. Only the first rank of a tensor-parallel group has a file; the others drop the same samples."""
    console, drawn = Console(job.world.is_main, 0), 0

    def keep(sample: Sample) -> None:
        if said := estimate.after(sample, drawn, time.monotonic()):
            console.note(said)
        if file is not None:
            file.append(sample, job.scoring.problems[sample.key[:2]].ground_truth)
            job.scoring.submit(factor, sample)

    with progress(f"YaRN {factor:g}" if factor > 1 else "samples", len(wanted), enabled=job.world.is_main) as done:

        def show(finished: int, tokens: int) -> None:
            nonlocal drawn
            drawn = tokens
            if said := estimate.during(tokens, time.monotonic()):
                console.note(said)
            watch.mark(f"samples, {finished} of {len(wanted)} ended")
            done(finished, f"{count(tokens)} tokens  {job.scoring.running()}")

        hooks = Hooks(
            on_sample=keep,
            on_progress=show,
            should_stop=job.stop.requested,
            on_trouble=console.warning,
            at_once=job.stop.at_once,
        )
        try:
            job.source.draw(factor, wanted, hooks)
        finally:
            if file is not None:
                file.close()


def _check_ranks(settings: EvalSettings, world: World) -> None:
    parallel = settings.rollout.tensor_parallel
    if world.size % parallel != 0:
        raise Refused(f"rollout.tensor_parallel {parallel} does not divide the {world.size} ranks; start a multiple of it")


def _keys(suites: Sequence[Suite]) -> Iterator[Key]:
    """Keys of all samples; the samples of a problem are adjacent."""
    for suite in suites:
        for problem in suite.problems:
            yield from (Key(suite.name, problem.id, sample) for sample in range(suite.samples))


def _seed(settings: EvalSettings, key: Key) -> int:
    """The seed of a sample: the same for every YaRN factor, so that factors are compared on the same randomness."""
    return request_seed(settings.seed, f"eval/{key.suite}", 0, key.problem, key.sample)


def _results(job: _Job, scored: Sequence[Scored]) -> dict[str, Any]:
    """Numbers by YaRN factor and set."""
    results: dict[str, Any] = {}
    for factor in job.settings.rope_factors:
        results[f"{factor:g}"] = {}
        for suite in job.suites:
            chosen = [one for one in scored if (one.rope_factor, one.key.suite) == (factor, suite.name)]
            numbers = summarise_suite(suite, chosen, job.settings.buckets, job.scoring.strict)
            apart = accuracy_apart(numbers, job.overlap.problems[suite.name])
            results[f"{factor:g}"][suite.name] = numbers | {"overlap": apart}
    return results


def _facts(job: _Job, identity: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to repeat the evaluation."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "hardware": hardware(job.world.size),
        "versions": versions(),
        "grader": GRADER_VERSION,
        "settings": asdict(job.settings),
        "identity": identity,
        "overlap": {"against": job.overlap.against, "unread": job.overlap.unread},
        "sets": {
            suite.name: {
                "path": suite.path,
                "problems": len(suite.problems),
                "rejected": [asdict(error) for error in suite.rejected],
                "repeated": suite.repeated,
            }
            for suite in job.suites
        },
    }


def _describe(suites: Sequence[Suite], folder: Path) -> dict[str, str]:
    facts = {}
    for suite in suites:
        dropped = f", {len(suite.rejected)} without a gradable answer dropped" if suite.rejected else ""
        dropped += f", {suite.repeated} repeated dropped" if suite.repeated else ""
        facts[suite.name] = f"{len(suite.problems)} problems x {suite.samples} samples from {suite.path}{dropped}"
    return facts | {"folder": str(folder)}
