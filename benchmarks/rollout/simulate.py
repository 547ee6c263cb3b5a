"""How long the rollouts of a step take under each way to schedule them, simulated, and the real scheduler's decisions on the same lengths.

    python -m benchmarks.rollout.simulate [--rollouts RUN]       # five minutes of one core

Writes `benchmarks/results/rollout-simulated_DATE.md`. `--rollouts`: the lengths in a run's folder, scaled, beside the log-normal ones.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from math import inf
from pathlib import Path

import numpy as np

from benchmarks.rollout.engines import H200, SECOND
from benchmarks.rollout.lengths import Lengths, LogNormal, Measured, likeness, read_groups
from benchmarks.rollout.policies import Policy, Run, Step, Workload, ideal
from benchmarks.rollout.replay import replayed
from benchmarks.rollout.separate import Pace, Separate

RESULTS = Path(__file__).resolve().parents[1] / "results"
ENGINES, PROMPTS, SAMPLES, STEPS, SEEDS = 8, 128, 8, 10, 4
MEDIAN, DEVIATION, CAP, ALIKE = 16_000, 0.8, 64_000, 0.6
TRAINED_PER_SECOND = 3_693
"""Tokens a second that one H200 trains: prime-rl's benchmark of Qwen3-4B at 64K on 8 of them."""
STATIC = Policy(name="static share, neighbouring prompts", share="contiguous")
QUEUE = Policy(name="queue, longest first", history=True)
POLICIES = (
    STATIC,
    Policy(name="static share, dealt there and back", share="dealt"),
    Policy(name="static share, dealt longest first", share="dealt", history=True),
    Policy(name="static share, by expected tokens of an engine", share="by length", history=True),
    Policy(name="queue, no history"),
    QUEUE,
    Policy(name="queue, no history, helps as soon as its lane is empty", ratio=inf),
    Policy(name="queue, longest first, helps as soon as its lane is empty", history=True, ratio=inf),
    Policy(name="oversample 1.25, drawn anew", history=True, oversample=1.25),
    Policy(name="oversample 1.25, carried over", history=True, oversample=1.25, carry=True),
    Policy(name="oversample 1.5, carried over", history=True, oversample=1.5, carry=True),
    Policy(name="oversample 2, carried over", history=True, oversample=2.0, carry=True),
)
REPLAYED = (QUEUE, Policy(name="queue, no history"), *POLICIES[8:10])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rollouts", type=Path)
    folder = parser.parse_args().rollouts
    day = date.today().isoformat()
    parts = [
        f"# Rollouts of a step, simulated, {day}, {platform.machine()} CPU",
        f"Python {platform.python_version()}, numpy {version('numpy')}. Command: `python -m benchmarks.rollout.simulate"
        f"{' --rollouts RUN' if folder else ''}`. **All times are simulated**; no engine has run. {_assumptions()}",
        *(part for most in (256, 96, 64) for part in _colocated(most)),
        *(_measured(folder) if folder else ()),
        *_replay(),
        *_separate(),
    ]
    text = "\n\n".join(parts) + "\n"
    (RESULTS / f"rollout-simulated_{day}.md").write_text(text)
    print(text)


def _assumptions() -> str:
    return (
        f"Assumed of an engine, an H200 with a dense 4B model in bfloat16: a step of n sequences takes {H200.step / 10**9:g} ms + n x "
        f"{H200.sequence / 10**6:g} us + {H200.token / 1000:g} ns for each token of their contexts, and {H200.prefill / 10**6:g} us for "
        f"each token that is read; {H200.memory:,} tokens fit into its KV cache, and where it is full the last response is put back and "
        f"read again. Lengths: log-normal, median {MEDIAN:,}, deviation of the logarithm {DEVIATION}, cap {CAP:,}; {ALIKE:.0%} of its "
        f"variance is between prompts. The history is the mean of {SAMPLES} other responses to the same prompt."
    )


def _lengths(seed: int) -> LogNormal:
    return LogNormal(MEDIAN, DEVIATION, CAP, ALIKE, SAMPLES, seed)


def _load(lengths: Lengths, most: int, engines: int = ENGINES, steps: int = STEPS) -> Workload:
    return Workload(lengths=lengths, hardware=replace(H200, most=most), engines=engines, prompts=PROMPTS, samples=SAMPLES, steps=steps)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run: seconds a step, the same with the ideal scheduler, busy share, tokens a second and engine, staleness, shares."""

    seconds: float
    bound: float
    busy: float
    rate: float
    stale: float
    oldest: int
    dropped: float
    bias: float


def figures(load: Workload, steps: Sequence[Step]) -> Figures:
    """The bound waits for the longest response of a step only where the policy must: where all begun ones end in it."""
    work, alone = ideal(load, steps)
    ages = [
        (number - of, tokens) for number, step in enumerate(steps) for _, group in step.taken for parts in group for of, tokens in parts
    ]
    trained, seconds = sum(tokens for _, tokens in ages), sum(step.duration for step in steps) / SECOND
    prompts = [prompt for step in steps for prompt, _ in step.taken]
    natural = np.mean([load.lengths.drawn(prompt, number) for prompt in prompts for number in range(8)])
    return Figures(
        seconds=seconds / len(steps),
        bound=work if any(step.left for step in steps) else alone,
        busy=sum(sum(step.engines) for step in steps) / sum(load.engines * step.duration for step in steps),
        rate=trained / seconds / load.engines,
        stale=sum(age * tokens for age, tokens in ages) / trained,
        oldest=max(age for age, _ in ages),
        dropped=sum(step.dropped for step in steps) / sum(step.drawn for step in steps),
        bias=float(np.mean([length for step in steps for length in step.lengths()]) / natural - 1),
    )


def _colocated(most: int) -> tuple[str, str, str]:
    loads = [_load(_lengths(seed), most) for seed in range(SEEDS)]
    return (
        f"## {ENGINES} engines that sleep while the trainer works, rollout.max_concurrent = {most}",
        f"{PROMPTS} prompts x {SAMPLES} responses a step, {STEPS} steps, {SEEDS} seeds; mean and its standard error over the seeds. At the "
        "last step nothing is carried over. Bound: all engines always full. Busy: share of the step's time in which an engine has "
        "something. Bias: mean length of what is trained against the same prompts drawn afresh.",
        _table(loads, POLICIES),
    )


def _measured(folder: Path) -> tuple[str, str, str]:
    groups = read_groups(folder)
    deviation, alike = likeness(groups)
    scale = MEDIAN / float(np.median(np.concatenate(groups)))
    loads = [_load(Measured(groups, SAMPLES, scale, CAP, seed), 64) for seed in range(SEEDS)]
    return (
        "## The same on measured lengths, rollout.max_concurrent = 64",
        f"{len(groups)} groups of a run's rollouts, {scale:.0f} times as long. Deviation of the logarithm {deviation:.2f}, {alike:.0%} of "
        "its variance between prompts.",
        _table(loads, POLICIES),
    )


def _table(loads: Sequence[Workload], policies: Sequence[Policy]) -> str:
    rows = ["| policy | s a step | to static | of the bound | busy | tokens/s an engine | staleness, mean, most | dropped | bias |"]
    rows.append("| --- " * 9 + "|")
    before: list[Figures] = []
    for policy in policies:
        found = [figures(load, list(Run(policy, load).steps())) for load in loads]
        before = before or found
        change = [a.seconds / b.seconds - 1 for a, b in zip(found, before, strict=True)]
        mean = {name: np.mean([getattr(one, name) for one in found]) for name in Figures.__slots__}
        error = np.std([one.seconds for one in found], ddof=1) / len(found) ** 0.5
        spread = np.std(change, ddof=1) / len(found) ** 0.5
        rows.append(
            f"| {policy.name} | {mean['seconds']:.0f} ± {error:.0f} | {np.mean(change):+.1%} ± {spread:.1%} | "
            f"{np.mean([one.bound / one.seconds for one in found]):.1%} | {mean['busy']:.1%} | {mean['rate']:,.0f} | "
            f"{mean['stale']:.2f}, {max(one.oldest for one in found)} | {mean['dropped']:.1%} | {mean['bias']:+.1%} |"
        )
    return "\n".join(rows)


def _replay() -> tuple[str, str, str]:
    """Lengths and memory 64 times as small, a token as long as 64."""
    hardware = replace(H200, step=64 * H200.step, sequence=64 * H200.sequence, token=64 * 64 * H200.token, prefill=64 * H200.prefill)
    hardware = replace(hardware, most=16, memory=H200.memory // 64 // 4)
    lengths = LogNormal(MEDIAN // 64, DEVIATION, CAP // 64, ALIKE, SAMPLES, seed=0)
    load = Workload(lengths=lengths, hardware=hardware, engines=4, prompts=16, samples=SAMPLES, steps=3, prompt_tokens=2)
    rows = ["| policy | simulated, s a step | replayed | the same decisions |", "| --- | --- | --- | --- |"]
    one = replace(load, engines=1, prompts=load.prompts // load.engines)
    shares = [
        replayed(
            Policy(name=""), one, [step * load.prompts + share * one.prompts + i for step in range(load.steps) for i in range(one.prompts)]
        )
        for share in range(load.engines)
    ]
    rows.append(
        _row(STATIC.name, list(Run(STATIC, load).steps()), [max(step.duration for step in steps) for steps in zip(*shares, strict=True)])
    )
    for policy in REPLAYED:
        foretold, found = list(Run(policy, load).steps()), replayed(policy, load)
        rows.append(_row(policy.name, foretold, [step.duration for step in found], foretold == found))
    return (
        "## The real scheduler on the same lengths",
        "`Colocated`, `StepDraw`, `Line`, `Queue` and `Board` on 4 engines in virtual time, 16 prompts x 8 responses, 3 steps, 16 at once, "
        "lengths 64 times as short. The static share is one real engine on each share. Decisions: when each engine takes which response, "
        "when it ends, which groups are taken, and the weights of each token.",
        "\n".join(rows),
    )


def _row(name: str, foretold: Sequence[Step], found: Sequence[int], same: bool | None = None) -> str:
    times = [np.mean([step.duration for step in foretold]) / SECOND, np.mean(found) / SECOND]
    same = [step.duration for step in foretold] == list(found) if same is None else same
    return f"| {name} | {times[0]:.3f} | {times[1]:.3f} | {'yes' if same else 'NO'} |"


def _separate() -> tuple[str, str, str]:
    rows = ["| engines + trainers | staleness allowed | s a step | engines busy | tokens/s a GPU | staleness, mean, most |"]
    rows.append("| --- " * 6 + "|")
    tokens = float(np.mean([_lengths(0).drawn(prompt, 0) for prompt in range(PROMPTS * STEPS)])) * PROMPTS * SAMPLES
    train = tokens / TRAINED_PER_SECOND
    load = _load(_lengths(0), 64)
    for policy in (STATIC, QUEUE, POLICIES[9]):
        steps = list(Run(policy, load).steps())
        seconds = sum(step.duration for step in steps) / SECOND / len(steps) + train / ENGINES
        rows.append(
            f"| {ENGINES}, in turns: {policy.name} | {'-' if not policy.carry else policy.max_staleness} | {seconds:.0f} | - | "
            f"{tokens / seconds / ENGINES:,.0f} | {figures(load, steps).stale:.2f}, {figures(load, steps).oldest} |"
        )
    for engines in (5, 6):
        for staleness in (0, 1, 2, 4):
            pace = Pace(staleness=staleness, train=train / (ENGINES - engines), publish=10)
            out = Separate(_load(_lengths(0), 64, engines), pace).run()
            rows.append(
                f"| {engines} + {ENGINES - engines} | {staleness} | {out.seconds:.0f} | {out.busy:.1%} | "
                f"{tokens / out.seconds / ENGINES:,.0f} | {out.staleness_mean:.2f}, {out.staleness_max} |"
            )
    return (
        f"## Engines that sample while the trainer works, {ENGINES} GPUs in all",
        f"Whole steps. The trainer takes {train:.0f} GPU seconds a step ({TRAINED_PER_SECOND:,} tokens/s a GPU, prime-rl's figure for "
        "Qwen3-4B at 64K); new weights stop the engines for 10 s, which then read the tokens of their responses again; in turns, neither "
        "is counted, nor sleep and wake. One queue, no history, rollout.max_concurrent = 64; one seed.",
        "\n".join(rows),
    )


if __name__ == "__main__":
    main()
