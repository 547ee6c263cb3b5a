"""Records as words: pure functions behind the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

PHASES = ("rollout", "reward", "update", "sync", "checkpoint", "eval")
"""The timed parts of a step, in order; the record's keys are `seconds/<phase>`."""

_STEP_FACTS = (
    ("sft/loss", "loss {:.4f}"),
    ("eval/loss", "held-out loss {:.4f}"),
    ("reward/mean", "reward {:.3f}"),
    ("reward/accuracy", "accuracy {:.1%}"),
    ("response/length_mean", "length {:.0f}"),
    ("policy/entropy", "entropy {:.3f}"),
    ("optimizer/grad_norm", "grad {:.3g}"),
    ("mismatch/logprob_gap_mean", "gap {:.2g}"),
    ("eval/accuracy", "eval {:.1%}"),
    ("eval/pass_at_k", "pass@k {:.1%}"),
)
_BAR = 32


def clean(text: str) -> str:
    """One line without control characters, so that no text can move the cursor or forge a line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).rstrip().splitlines())


def count(number: float) -> str:
    """987, 12.3k, 4.5M, 1.2G."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def duration(seconds: float) -> str:
    """4.2s, 3m05s, 2h07m, 3d04h."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def ceiling(prompts: int, samples: int, limit: int) -> str:
    """Most responses and tokens of a pass over prompts with `samples` responses of at most `limit` tokens to each."""
    return f"at most {prompts * samples:,} responses ({samples} each) and {count(prompts * samples * limit)} tokens ({limit:,} each)"


def step_line(record: Mapping[str, Any], total_steps: int) -> tuple[str, str]:
    """Title and facts of one record; what it does not hold is left out and what was not finite reads `nan`."""
    facts = [_fact(record[key], template) for key, template in _STEP_FACTS if key in record]
    seconds = [f"{phase} {duration(record[f'seconds/{phase}'])}" for phase in PHASES if record.get(f"seconds/{phase}")]
    if seconds:
        facts.append(f"({', '.join(seconds)})")
    rate, used = record.get("throughput/rollout_tokens_per_s"), record.get("throughput/mfu_step")
    if rate is not None:
        facts.append(f"{count(rate)} tokens/s")
    if used is not None:
        facts.append(f"MFU {used:.1%}")
    return f"step {record['step']}/{total_steps}", "  ".join(facts)


def summary_line(summary: Mapping[str, Any]) -> str:
    """The outcome of a run from `polaris.observe.report.summary`."""
    done = f"{summary['steps']} step{'s' if summary['steps'] != 1 else ''} in {duration(summary['minutes'] * 60)}"
    if summary.get("final_loss") is not None:
        return f"{done}; held-out loss {summary['base_loss'] or float('nan'):.4f} -> {summary['final_loss']:.4f}"
    base, final = (f"{value:.1%}" if value is not None else "" for value in (summary["base_accuracy"], summary["final_accuracy"]))
    if not final:
        return f"{done}; base accuracy {base}" if base else f"{done}; no held-out evaluation"
    at = f" at step {summary['final_step']}" if summary["final_step"] < summary["steps"] else ""
    if not base:
        return f"{done}; final accuracy {final}{at}"
    sampled = f" (not like for like: {summary['sampled']})" if summary.get("sampled") else ""
    return f"{done}; accuracy {base} -> {final}{at}{sampled}"


def histogram(before: Sequence[int], after: Sequence[int]) -> list[str]:
    """One line for each of the bins 0/n .. n/n: a bar as long as its share, with `after` as the filled part."""
    samples, largest = len(before) - 1, max(1, *before)
    rows = []
    for k, (size, kept) in enumerate(zip(before, after, strict=True)):
        filled, length = round(_BAR * kept / largest), round(_BAR * size / largest)
        rows.append(f"  {f'{k}/{samples}':>5}  {'█' * filled + '░' * (length - filled):<{_BAR}} {size:>7} -> {kept:>7}")
    return [*rows, f"  {'all':>5}  {'':<{_BAR}} {sum(before):>7} -> {sum(after):>7}"]


def left_out(measured: Mapping[str, Any]) -> str:
    """The share of a difficulty pass's responses that `difficulty.stop_early` left out; empty where all were drawn."""
    most = measured["samples_per_prompt"] * measured["prompts"]
    fewer = most - measured.get("responses", most)  # results of older versions have all
    return f"{fewer / most:.1%} of them left out, since they could not change what is dropped" if fewer else ""


def also_trained(numbers: Mapping[str, Any], looked: Mapping[str, Any]) -> tuple[str, dict[str, float] | None]:
    """How many of an evaluated set's problems are also in the training data, such as `28 of 150`, and the avg@n of the others.

    `looked` names what was looked through: "" and None where nothing was, as in results of older versions. None where no other is left.
    """
    found = numbers.get("overlap")
    if not found or not looked.get("against"):
        return "", None
    return f"{'at least ' if looked.get('unread') else ''}{len(found['problems'])} of {numbers['problems']}", found["without"]


def nearest_rates(fewer: int, samples: int) -> str:
    """How a histogram of the rates 0/n .. n/n counts prompts with fewer than n verdicts; empty where there is none."""
    return f"{fewer:,} prompts have fewer than {samples} graded responses; each counts at the nearest of these rates" if fewer else ""


def beside_training(numbers: Mapping[str, Any], looked: Mapping[str, Any], interval: Callable[[dict[str, float]], str]) -> str:
    """The end of a score's line that says so, with the avg@n of the others; "" where nothing was looked through."""
    found, without = also_trained(numbers, looked)
    others = f", avg@{numbers['samples']} without them {interval(without)}" if without and numbers["overlap"]["problems"] else ""
    return f"; {found} problems also in the training data{others}" if found else ""


def _fact(value: float | None, template: str) -> str:
    return template.format(float("nan") if value is None else value)
