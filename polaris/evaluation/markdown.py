"""The result of an evaluation as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polaris.data.gold import shortened
from polaris.observe.phrases import beside_training, clean, count, duration
from polaris.reward import no_answer
from polaris.reward.thinking import Thinking

_LISTED_DISAGREEMENTS = 50


def markdown(result: dict[str, Any]) -> str:
    """The text of result.md: the scores first, then what is needed to repeat them."""
    rows = [(factor, name, numbers) for factor, sets in result["results"].items() for name, numbers in sets.items()]
    return (
        "\n".join(
            [
                *_scores(rows),
                *_overlap(rows, result["overlap"]),
                *_counts(rows),
                *_buckets(rows),
                *_disagreements(rows),
                *_provenance(result),
            ]
        )
        + "\n"
    )


def score_lines(result: dict[str, Any]) -> list[str]:
    """One line per set and YaRN factor, for a terminal."""
    return [
        f"{name}{f' YaRN {factor}' if len(result['results']) > 1 or factor != '1' else ''}: avg@{n['samples']} {_interval(n['avg'])}, "
        f"pass@{n['samples']} {n['pass'][str(n['samples'])]['mean']:.1%}, maj@{n['samples']} {n['maj'][str(n['samples'])]['mean']:.1%}, "
        f"no answer {n['no_answer']:.1%}{_why(n)}, clipped {n['clipped']:.1%}{beside_training(n, result.get('overlap', {}), _interval)}"
        for factor, sets in result["results"].items()
        for name, n in sets.items()
    ]


def announcement(result: dict[str, Any], folder: Path) -> str:
    """The lines that a terminal shows at the end."""
    lines = [str(Thinking(**result["thinking"]))]
    if all(n["no_answer"] == 1 for sets in result["results"].values() for n in sets.values()):
        lines.append(_NO_ANSWERS)
    return "\n".join([*score_lines(result), *lines, f"wrote {folder / 'result.md'} and result.html, which lists every problem"])


_NO_ANSWERS = (
    "warning: no response has an answer, so every score is 0: ask for its form (a \\boxed{} by default) with the prompt suffix, "
    "allow longer responses, or do not require thinking of a model that does not think"
)


def _why(numbers: dict[str, Any]) -> str:
    return f" ({no_answer.in_words(numbers['no_answer_reasons'])})" if numbers["no_answer_reasons"] else ""


def _scores(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    yield "# Evaluation"
    yield ""
    yield "Mean over problems with 95% Wilson interval; recipe: the same responses under the recipe's published grader."
    yield ""
    cells = ("set", "YaRN", "problems", "n", "avg@n", "avg@n (recipe)", "pass@n", "maj@n", "no answer", "clipped", "mean tokens")
    yield from _table(
        cells,
        [
            (
                name,
                factor,
                str(n["problems"]),
                str(n["samples"]),
                _interval(n["avg"]),
                _interval(n["avg_recipe"]),
                _interval(n["pass"][str(n["samples"])]),
                _interval(n["maj"][str(n["samples"])]),
                f"{n['no_answer']:.1%}",
                f"{n['clipped']:.1%}",
                f"{n['length_mean']:.0f}",
            )
            for factor, name, n in rows
        ],
    )


def _overlap(rows: Sequence[tuple[str, str, dict[str, Any]]], looked: dict[str, Any]) -> Iterator[str]:
    """avg@n with and without problems that are also training data, as far as that was looked through."""
    if not looked["against"] and not looked["unread"]:
        return
    yield from ("", "## Also in the training data", "")
    yield from (f"{clean(name)} could not be read and was not looked through." for name in looked["unread"])
    if looked["against"]:
        yield f"Looked through: {clean(', '.join(looked['against']))}."
        yield "Problems overlap if their texts are equal, or if shared runs of 13 words cover half of one of them."
    yield ""
    lines = []
    for factor, name, n in rows:
        within, without = ("-" if n["overlap"][part] is None else _interval(n["overlap"][part]) for part in ("within", "without"))
        lines.append((name, factor, f"{len(n['overlap']['problems'])} of {n['problems']}", _interval(n["avg"]), without, within))
    yield from _table(("set", "YaRN", "overlapping", "avg@n", "avg@n without them", "avg@n of them"), lines)


def _counts(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    yield from ("", "## By number of samples", "")
    yield "pass@k is the unbiased estimate; maj@k the majority vote of k samples, a tie counted as the share of the tied that is correct."
    yield ""
    lines = [(name, factor, k, _interval(n["pass"][k]), _interval(n["maj"][k])) for factor, name, n in rows for k in n["pass"]]
    yield from _table(("set", "YaRN", "k", "pass@k", "maj@k"), lines)


def _buckets(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    yield from ("", "## By length of the response", "")
    lines = [
        (
            name,
            factor,
            f"{b['from']} to {b['below'] - 1}" if b["below"] else f"{b['from']} or more",
            str(b["responses"]),
            "-" if b["accuracy"] is None else f"{b['accuracy']:.1%}",
            "-" if b["clipped"] is None else f"{b['clipped']:.1%}",
        )
        for factor, name, n in rows
        for b in n["buckets"]
    ]
    yield from _table(("set", "YaRN", "tokens", "responses", "accuracy", "clipped"), lines)


def _disagreements(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    found = [(factor, name, one) for factor, name, n in rows for one in n["disagreements"]]
    yield from ("", "## Where the two graders disagree", "")
    if not found:
        yield "Nowhere."
        return
    lines = [
        (name, factor, f"{one['problem']}/{one['sample']}", _code(one["answer"]), _code(one["ground_truth"]), one["strict"], one["recipe"])
        for factor, name, one in found[:_LISTED_DISAGREEMENTS]
    ]
    yield from _table(("set", "YaRN", "problem/sample", "answer", "ground truth", "strict", "recipe"), lines)
    if len(found) > _LISTED_DISAGREEMENTS:
        yield from ("", f"And {len(found) - _LISTED_DISAGREEMENTS} more, in result.json.")


def _provenance(result: dict[str, Any]) -> Iterator[str]:
    last = result["last_call"]
    yield from ("", "## To repeat it", "")
    facts = {
        "command": result["command"],
        "date": result["date"],
        "hardware": result["hardware"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "grader": result["grader"],
        "thinking": str(Thinking(**result["thinking"])),
        **{
            f"without an answer, {name}{f', YaRN {factor}' if factor != '1' else ''}": no_answer.in_words(n["no_answer_reasons"]) or "none"
            for factor, sets in result["results"].items()
            for name, n in sets.items()
        },
        "last call": f"{last['samples']} samples drawn in {duration(last['seconds'])}",
        "response tokens": count(sum(n["tokens"] for sets in result["results"].values() for n in sets.values())),
    }
    yield from (f"- {name}: {clean(str(value))}" for name, value in facts.items())
    yield from (f"- {name}: {one['path']}, {len(one['rejected'])} rows without a gradable answer" for name, one in result["sets"].items())
    yield from ("", "```json", json.dumps({"settings": result["settings"], "identity": result["identity"]}, indent=2), "```")


def _interval(number: dict[str, float]) -> str:
    return f"{number['mean']:.1%} [{number['low']:.1%}, {number['high']:.1%}]"


def _code(value: object) -> str:
    """As code in a cell of a table; LaTeX's norm `\\|` would end the cell and becomes the sign it stands for."""
    text = clean("none" if value is None else str(value)).replace("`", "'").replace("\\|", "\u2016").replace("|", "\\|")
    return f"`{shortened(text)}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
