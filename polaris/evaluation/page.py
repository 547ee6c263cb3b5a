"""result.html: from a set's score to each problem, its answers and some of its responses; one file that needs no network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polaris.data.gold import shortened
from polaris.evaluation.samples import Key, read_samples
from polaris.evaluation.scoring import Scored
from polaris.evaluation.suites import Suite
from polaris.observe.coloured import block
from polaris.observe.document import document
from polaris.observe.markup import folded, interval, note, percent, safe, section, table
from polaris.observe.phrases import beside_training
from polaris.observe.samples import choose

_SHOWN = 4
"""Responses of a problem that are shown: right and wrong ones in turn."""
_LONGEST = 6_000
_MOST = 12_000_000
"""Characters of a response, and of all responses of a page, beyond which they lose their middle."""
_ANSWERS = 6
_HEAD = ("problem", "solved", "answers, most frequent first", "ground truth", "mean tokens")

Problems = Mapping[str, Sequence[Scored]]
"""Samples of one set at one factor by problem, in their order."""


def page(name: str, folder: Path, suites: Sequence[Suite], scored: Sequence[Scored], result: Mapping[str, Any]) -> str:
    """The page; `folder` holds the samples, `result` is that of result.json. Its size is bounded by `_MOST` and the problems."""
    grouped: dict[tuple[str, str], dict[str, list[Scored]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(scored, key=lambda one: one.key):
        grouped[f"{one.rope_factor:g}", one.key.suite][one.key.problem].append(one)
    texts = _texts(folder, grouped)
    parts = [f"<h1>{safe(name)}</h1>", note("The hardest problems come first; a problem's name leads to its responses.")]
    results, looked = result["results"], result["overlap"]
    for factor, sets in results.items():
        for suite in suites:
            title = f"{suite.name}{f', YaRN {factor}' if len(results) > 1 or factor != '1' else ''}"
            score = note(_score(sets[suite.name], looked))
            parts.append(section(safe(title), score, *_set(factor, suite, sets[suite.name], grouped[factor, suite.name], texts)))
    return document(name, "".join(parts))


def _score(numbers: Mapping[str, Any], looked: Mapping[str, Any]) -> str:
    score = f"avg@{numbers['samples']} {interval(numbers['avg'])}, {percent(numbers['no_answer'])} without an answer"
    return score + beside_training(numbers, looked, interval)


def _set(
    factor: str, suite: Suite, numbers: Mapping[str, Any], problems: Problems, texts: Mapping[tuple[str, Key], str]
) -> tuple[str, ...]:
    """The table of a set's problems, and each of them folded."""
    known = set(numbers["overlap"]["problems"])
    asked = {problem.id: problem for problem in suite.problems}
    hardest = sorted(problems, key=lambda problem: (numbers["correct"][problem], list(asked).index(problem)))
    rows, cards = [], []
    for problem in hardest:
        samples = problems[problem]
        anchor = safe(f"{factor}/{suite.name}/{problem}")
        rate, truth = f"{numbers['correct'][problem]} of {len(samples)}", str(asked[problem].ground_truth)
        link = f'<a href="#{anchor}">{safe(problem)}</a> {safe(shortened(" ".join(asked[problem].text.split())))}'
        link += ' <span class="dim">(also in the training data)</span>' if problem in known else ""
        tokens = sum(one.tokens for one in samples) / len(samples)
        rows.append((link, rate, _answers(samples), safe(shortened(truth)), f"{tokens:,.0f}"))
        shown = [_response(one, texts[factor, one.key]) for one in samples if (factor, one.key) in texts]
        facts = (
            f'<div class="part" id="{anchor}">Problem</div>{block(asked[problem].text)}<div class="part">Ground truth</div>{block(truth)}'
        )
        cards.append(
            folded(f"{safe(problem)}: {rate} solved, {len(shown)} response{'s' if len(shown) != 1 else ''}", facts + "".join(shown))
        )
    return (table(_HEAD, rows), *cards)


def _answers(samples: Sequence[Scored]) -> str:
    """Answers with their numbers, such as `84 x5 (right), 83 x2, no answer x1`."""
    counts = Counter((one.strict.answer, one.strict.kind == "correct") for one in samples)
    words = [
        f"{'no answer' if answer is None else safe(shortened(answer, 24))} x{number}{' (right)' if right else ''}"
        for (answer, right), number in counts.most_common(_ANSWERS)
    ]
    return ", ".join(words + ([f"{len(counts) - _ANSWERS} more"] if len(counts) > _ANSWERS else []))


def _response(one: Scored, text: str) -> str:
    kind = one.strict.kind
    colour = {"correct": "good", "wrong": "bad"}.get(kind, "other")
    facts = f"sample {one.key.sample}, {one.tokens:,} tokens, {one.finish_reason}{f', {one.strict.reason}' if one.strict.reason else ''}"
    head = f'<span class="verdict">{kind.replace("_", " ")}</span><span class="dim">{safe(facts)}</span>'
    return f'<article class="rollout {colour}">{head}{block(text)}</article>'


def _texts(folder: Path, grouped: Mapping[tuple[str, str], Problems]) -> dict[tuple[str, Key], str]:
    """The responses that are shown, by factor and key, cut to what the page may hold."""
    chosen = {(factor, key) for (factor, _), problems in grouped.items() for key in _chosen(problems.values())}
    longest = min(_LONGEST, _MOST // max(1, len(chosen)))
    factors = dict.fromkeys(factor for factor, _ in grouped)
    return {
        (factor, one.key): _cut(one.response, longest)
        for factor in factors
        for one in read_samples(folder / f"rope-{factor}")
        if (factor, one.key) in chosen
    }


def _chosen(problems: Any) -> Iterator[Key]:
    for samples in problems:
        yield from (samples[index].key for index in choose(0, [one.strict.kind for one in samples], _SHOWN))


def _cut(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
