"""Two results of evaluations over the same problems: does one differ from the other beyond chance?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polaris.algorithm.paired import Difference, mean_of_sets, paired_difference
from polaris.checkpoint.runs import is_run
from polaris.errors import Refused
from polaris.evaluation.settings import PLAIN
from polaris.results import Result, differences

_SMALL = 100
"""Fewer problems than this are told what they can tell."""
_APART = ("sets", "model", "server_model")
"""Parts of an identity that are no settings: the problems, and what is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One set at one YaRN factor: both avg@k, with their numbers of samples, and the difference, B minus A."""

    name: str
    factor: str
    first: float
    second: float
    samples: tuple[int, int]
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`sets` in the order of A, `overall` the mean over them at each factor with several; `settings` differ (`name: A -> B`), and
    `apart` are sets that only one of the two has."""

    first: Path
    second: Path
    sets: list[Compared]
    overall: dict[str, Difference]
    settings: list[str]
    apart: list[str]


def compare(first: Path, second: Path) -> Comparison:
    """Compare two results: folders of `polaris eval`, their result.json, or runs with a final evaluation.

    Raises:
        Refused: no such result, none that says what it has of each problem, or other problems or prompts under a set's name.
    """
    (a_path, a), (b_path, b) = _read(first), _read(second)
    if a_path == b_path:
        raise Refused(f"{first} and {second} are the same result; name two")
    changed = _settings(a, b)
    pairs = [(factor, name) for factor, sets in a["results"].items() for name in sets if name in b["results"].get(factor, {})]
    if not pairs:
        raise Refused(
            f"{first} has {_held(a)}, {second} has {_held(b)}: nothing to compare; evaluate both on the same sets and YaRN factors"
        )
    for name in dict.fromkeys(name for _, name in pairs):
        _check_same(name, a, b, changed)
    compared = [_compare(factor, name, a["results"][factor][name], b["results"][factor][name]) for factor, name in pairs]
    by_factor = {factor: [one.difference for one in compared if one.factor == factor] for factor in a["results"]}
    return Comparison(
        first=a_path,
        second=b_path,
        sets=compared,
        overall={factor: mean_of_sets(found) for factor, found in by_factor.items() if len(found) > 1},
        settings=changed,
        apart=sorted({f"{name} (YaRN {factor})" for factor, name in _names(a) ^ _names(b)}),
    )


def lines(comparison: Comparison) -> Iterator[str]:
    """The comparison for a terminal, as a Markdown table and what to know about it."""
    yield f"A = {comparison.first}"
    yield f"B = {comparison.second}"
    yield from (f"settings differ: {change}" for change in comparison.settings)
    if comparison.apart:
        yield f"only in one of them: {', '.join(comparison.apart)}"
    yield ""
    yield "| set | YaRN | problems | k of A, B | avg@k of A | avg@k of B | B - A, points [95 %] | p |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for one in comparison.sets:
        scores = f"{one.samples[0]}, {one.samples[1]} | {one.first:.1%} | {one.second:.1%}"
        yield f"| {one.name} | {one.factor} | {one.difference.problems} | {scores} | {_cells(one.difference)} |"
    for factor, overall in comparison.overall.items():
        yield f"| mean of the sets | {factor} | {overall.problems} | | | | {_cells(overall)} |"
    yield ""
    unlike = f" (other {', '.join(change.partition(':')[0] for change in comparison.settings)})" if comparison.settings else ""
    for one in comparison.sets:
        yield _in_words(f"{one.name}{f', YaRN {one.factor}' if one.factor != '1' else ''}", one.difference) + unlike


def _cells(one: Difference) -> str:
    return f"{100 * one.mean:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}] | {f'{one.p:.3f}' if one.p >= 0.001 else '< 0.001'}"


def _in_words(name: str, one: Difference) -> str:
    if one.alike and not one.mean:
        return f"{name}: no problem differs; {one.problems} problems could have missed up to {100 * one.tells:.1f} points"
    verdict = "no difference beyond chance" if one.p >= 0.05 else f"B is {'better' if one.mean > 0 else 'worse'} beyond chance"
    small = f"; {one.problems} problems tell differences of {100 * one.tells:.1f} points at best" if one.problems < _SMALL else ""
    chance = f"p = {one.p:.2g}" if one.p >= 1e-6 else "p < 1e-6"
    return f"{name}: {verdict} ({chance}){small}"


def _read(given: Path) -> tuple[Path, dict[str, Any]]:
    place = given.expanduser()
    if is_run(place):
        found = sorted(place.glob("stages/evaluation/step-*/result.json"))
        if not found:
            raise Refused(
                f"{given} is a run without a final evaluation; set final.suite, or evaluate it: polaris eval --model {given} --suite SET"
            )
        place = found[-1]
    path = place if place.suffix == ".json" else place / "result.json"
    if not path.is_file():
        raise Refused(f"{path} is not there; give the folder of a finished `polaris eval`, or a run with a final evaluation")
    result = Result(path, remedy="the same `polaris eval` writes it again").read_existing("results", "identity", "settings", "grader")
    if not _is_whole(result):
        raise Refused(
            f"{path} does not say of each problem how many of its samples are right; the same `polaris eval` writes it again, and draws "
            "nothing"
        )
    return path, result


def _is_whole(result: Mapping[str, Any]) -> bool:
    """Whether a result, of an older version or damaged, counts the right samples of each problem of each of its sets."""
    results, identity = result["results"], result["identity"]
    if not isinstance(results, dict) or not isinstance(identity, dict):
        return False
    if not all(isinstance(one, dict) for one in (identity.get("sets"), identity.get("yarn", {}), *results.values())):
        return False
    return all(name in identity["sets"] and _is_counted(numbers) for sets in results.values() for name, numbers in sets.items())


def _is_counted(numbers: Any) -> bool:
    if not isinstance(numbers, dict) or not isinstance(numbers.get("correct"), dict):
        return False
    samples, counts = numbers.get("samples"), numbers["correct"].values()
    return isinstance(samples, int) and samples > 0 and all(isinstance(count, int) and 0 <= count <= samples for count in counts)


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Settings that decide samples and verdicts and differ; the model's, which is compared, are not among them."""
    both = []
    for result in (a, b):
        identity = {name: value for name, value in result["identity"].items() if name not in _APART}
        both.append(
            {"answer_form": PLAIN.answer}
            | identity
            | {"grader": result["grader"], "an answer counts only after </think>": result.get("thinking", {}).get("required")}
        )
    yarn = sorted(set(both[0].get("yarn", {})) & set(both[1].get("yarn", {})))
    return differences(*(one | {"yarn": {factor: one["yarn"][factor] for factor in yarn}} for one in both))


def _check_same(name: str, a: Mapping[str, Any], b: Mapping[str, Any], changed: list[str]) -> None:
    ids = {frozenset(sets[name]["correct"]) for result in (a, b) for sets in result["results"].values() if name in sets}
    if a["identity"]["sets"][name] == b["identity"]["sets"][name] and len(ids) == 1:
        return
    why = [change for change in changed if change.startswith("prompt_suffix")]
    counts = {len(sets[name]["correct"]) for result in (a, b) for sets in result["results"].values() if name in sets}
    why += [f"{' and '.join(map(str, sorted(counts)))} problems"] if len(counts) > 1 else []
    found = "; ".join(why) or "texts, answers, ids or system prompt"
    raise Refused(
        f"the problems or prompts of {name} differ ({found}), so that no problem is paired with itself; evaluate both with the same file, "
        "suffix and system prompt"
    )


def _compare(factor: str, name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Compared:
    shares = [np.array([one["correct"][problem] / one["samples"] for problem in a["correct"]]) for one in (a, b)]
    if len(shares[0]) < 2:
        raise Refused(f"{name} has a single problem, which tells no difference; compare sets of more")
    return Compared(
        name=name,
        factor=factor,
        first=float(shares[0].mean()),
        second=float(shares[1].mean()),
        samples=(a["samples"], b["samples"]),
        difference=paired_difference(*shares),
    )


def _names(result: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(factor, name) for factor, sets in result["results"].items() for name in sets}


def _held(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} (YaRN {factor})" for factor, name in sorted(_names(result))) or "no set"
