"""The evaluation after training, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polaris.observe.markup import folded, interval, note, percent, safe, section, table
from polaris.observe.phrases import also_trained
from polaris.observe.run_files import RunFiles

_SCORES = ("set", "YaRN", "avg@n", "pass@n", "maj@n", "avg@n (recipe grader)", "no answer", "cut off", "mean tokens", "problems", "n")
_APART = ("also in the training data", "avg@n without them")
_BUCKETS = ("set", "YaRN", "tokens", "responses", "accuracy", "cut off")


def evaluation(run: RunFiles) -> str:
    """Scores are means over problems with 95% intervals."""
    if run.evaluation is None:
        return ""
    rows = [(safe(name), safe(factor), numbers) for factor, sets in run.evaluation["results"].items() for name, numbers in sets.items()]
    looked = run.evaluation.get("overlap", {})
    apart = [_apart(numbers, looked) for _, _, numbers in rows]
    return section(
        "Final evaluation",
        table((*_SCORES, *(_APART if any(apart) else ())), [(*_scores(*row), *cells) for row, cells in zip(rows, apart, strict=True)]),
        note(f"Means over problems with 95% intervals; {_sampling(run.evaluation)}{safe(run.evaluation['date'])}."),
        *(
            [note(f'<a href="{safe(run.evaluation_page)}">Every problem, its answers and some of its responses</a>')]
            if run.evaluation_page
            else []
        ),
        *_looked(looked),
        *_held_out(run),
        folded("By length of the response", table(_BUCKETS, [cells for row in rows for cells in _buckets(*row)])),
    )


def _apart(numbers: Mapping[str, Any], looked: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of `_APART`; none where nothing was looked through."""
    found, without = also_trained(numbers, looked)
    return (found, interval(without) if without else "-") if found else ()


def _looked(looked: Mapping[str, Any]) -> list[str]:
    unread = "".join(f" {safe(name)} could not be read." for name in looked.get("unread", ()))
    if not looked.get("against"):
        return [note(unread)] if unread else []
    return [note(f"Training data that was looked through: {safe(', '.join(looked['against']))}.{unread}")]


def _sampling(result: Mapping[str, Any]) -> str:
    settings = result.get("settings", {})
    names = {"temperature": "temperature", "top_k": "top-k", "max_response_tokens": "tokens at most"}
    return "".join(f"{words} {safe(str(settings[key]))}; " for key, words in names.items() if key in settings)


def _held_out(run: RunFiles) -> list[str]:
    """Why the last held-out accuracy is another number."""
    last = run.last_evaluation
    if last is None:
        return []
    facts = (
        f"{last['eval/samples_per_prompt']} samples per problem" if "eval/samples_per_prompt" in last else "",
        f"temperature {last['eval/temperature']:g}" if "eval/temperature" in last else "",
        f"at most {last['eval/response/limit']:,} tokens" if "eval/response/limit" in last else "",
    )
    how = ", ".join(filter(None, facts))
    return [
        note(
            f"The held-out accuracy of step {last['step']}, {percent(last['eval/accuracy'])}, is a measurement of its own: other samples "
            f"with other seeds{f' ({safe(how)})' if how else ''}, graded while training went on. Of the same weights and problems, the two "
            "differ by chance as far as their intervals do."
        )
    ]


def _scores(name: str, factor: str, numbers: dict[str, Any]) -> Sequence[str]:
    n = str(numbers["samples"])
    return (
        name,
        factor,
        interval(numbers["avg"]),
        interval(numbers["pass"][n]),
        interval(numbers["maj"][n]),
        interval(numbers["avg_recipe"]),
        percent(numbers["no_answer"]),
        percent(numbers["clipped"]),
        f"{numbers['length_mean']:,.0f}",
        f"{numbers['problems']:,}",
        n,
    )


def _buckets(name: str, factor: str, numbers: dict[str, Any]) -> list[Sequence[str]]:
    return [
        (
            name,
            factor,
            f"{bucket['from']:,} to {bucket['below'] - 1:,}" if bucket["below"] else f"{bucket['from']:,} or more",
            f"{bucket['responses']:,}",
            percent(bucket["accuracy"]),
            percent(bucket["clipped"]),
        )
        for bucket in numbers["buckets"]
    ]
