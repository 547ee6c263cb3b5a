"""Choosing the prompts to train on by how often the model itself solves them; pure functions of ids and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Literal

from polaris.config.recipe import CurationConfig
from polaris.errors import Refused

Passes = tuple[int, int]
"""The correct responses of a prompt, and all of its responses that have a verdict."""

Reason = Literal["no_verdict", "easy", "hard", "shape"]
"""Why a prompt is dropped: no response has a verdict, its pass rate reaches `drop_from` or is not above `drop_up_to`, or its bin is above
the target."""


class CurationError(Refused):
    """The set cannot get the shape that was asked for, or too few of its prompts are solved sometimes."""


def prompts_to_drop(measured: Mapping[str, Passes], samples: int, config: CurationConfig, seed: int) -> dict[str, Reason]:
    """The prompts to drop, each with its reason; `samples` is the number of responses that were drawn per prompt.

    A bin above its target keeps the prompts with the smallest digest of (seed, id). The choice depends on seed, ids and the target,
    not on the order of the set, and a smaller target keeps a subset of what a larger one keeps.

    Raises:
        CurationError: `config.histogram` wants prompts of a pass rate that no prompt has, or a mirrored J has no tall stroke.
    """
    dropped: dict[str, Reason] = {key: "no_verdict" for key, (_, count) in measured.items() if not count}
    rated = {key: passes for key, passes in measured.items() if key not in dropped}
    decided = {key: _by_rate(passed / count, config) for key, (passed, count) in rated.items()}
    dropped |= {key: reason for key, reason in decided.items() if reason}
    left = {key: passes for key, passes in rated.items() if key not in dropped}
    if config.shape == "mirrored_j":
        bins = [[key for key, passes in left.items() if outcome(passes, samples) == k] for k in range(samples + 1)]
        sizes = [len(keys) for keys in bins]
        _check_stroke(sizes)
        targets = mirrored_j(sizes)
    elif config.histogram:
        width = len(config.histogram)
        bins = [[key for key, passes in left.items() if share_bin(passes, width) == b] for b in range(width)]
        targets = largest_subset([len(keys) for keys in bins], config.histogram)
    else:
        return dropped
    for keys, target in zip(bins, targets, strict=True):
        dropped |= dict.fromkeys(sorted(keys, key=lambda key: shuffle_key(seed, key))[target:], "shape")
    return dropped


def settled(passes: Passes, left: int, config: CurationConfig) -> bool:
    """Whether `drop_from` and `drop_up_to` decide the same of a prompt whatever its `left` further responses will be: passed, failed,
    or lost in grading.

    >>> settled((3, 4), 4, CurationConfig(drop_from=1.0)), settled((4, 4), 4, CurationConfig(drop_from=1.0))
    (True, False)
    """
    passed, count = passes
    if not left or not count:
        return not left
    least, most = passed / (count + left), (passed + left) / (count + left)
    return _by_rate(least, config) == _by_rate(most, config)  # it rises with the rate from hard over none to easy


def _by_rate(rate: float, config: CurationConfig) -> Reason | None:
    if rate >= config.drop_from:
        return "easy"
    return "hard" if config.drop_up_to is not None and rate <= config.drop_up_to else None


def _check_stroke(sizes: Sequence[int]) -> None:
    """Raise `CurationError` if the prompts that are never solved are fewer than half the mean of the other bins."""
    if 2 * sizes[0] * sum(map(bool, sizes[1:])) < sum(sizes[1:]):
        raise CurationError(
            f'curation.shape = "mirrored_j" needs many prompts that are never solved, and finds {sizes[0]} of {sum(sizes)} (prompts per '
            f"bin: {', '.join(map(str, sizes))}); it would thin the others out to as few. Add harder prompts, or remove curation.shape"
        )


def mirrored_j(sizes: Sequence[int]) -> list[int]:
    """Sizes [n + 1] of the bins 0/n .. n/n after thinning to a mirrored J: its tall stroke at the hard end, a lower hook at the easy end.

    No bin is larger than that of the never solved prompts. The bins above 1/2 together hold no more than those below; if they do,
    the largest of them are cut to one level. Both rules hold for the sets that POLARIS calls mirrored Js (R1-Distill-7B's and
    Qwen3-4B's without 8/8, the latter with a hook that rises from 2/8 to 7/8); neither holds for the J before (R1-Distill-7B's with 8/8).
    Bins need not fall one by one: that would thin out prompts that are solved sometimes, and POLARIS's ablation lost accuracy
    (0.585 to 0.537 on AIME24) when it dropped those above 4/8.
    """
    capped = [min(size, sizes[0]) for size in sizes]
    half = len(sizes) // 2
    hard, easy = sum(capped[:half]), capped[len(sizes) - half :]
    level = next(level for level in range(sizes[0], -1, -1) if sum(min(size, level) for size in easy) <= hard)
    return capped[: len(sizes) - half] + [min(size, level) for size in easy]


def largest_subset(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Sizes of the largest subset whose bins have the given shares (scaled to sum to 1), each rounded down to whole prompts.

    Raises:
        CurationError: a bin with a share above 0 is empty.
    """
    # A share means the decimal number as written: 0.1 to 0.3 is one to three, but their binary values are not.
    written = [Fraction(str(share)) for share in shares]
    wanted = [share / sum(written) for share in written]
    empty = [index for index, share in enumerate(wanted) if share and not sizes[index]]
    if empty:
        names = ", ".join(f"[{index}] (pass rates from {index / len(sizes):.3g})" for index in empty)
        raise CurationError(
            f"curation.histogram{names} has a share above 0, but no prompt of that pass rate is left (prompts per bin: "
            f"{', '.join(map(str, sizes))}); set its share to 0, use fewer bins, or add such prompts"
        )
    most = min(size / share for size, share in zip(sizes, wanted, strict=True) if share)
    return [int(most * share) for share in wanted]


def outcome(passes: Passes, samples: int) -> int:
    """The k of the nearest bin k/n (lost verdicts may leave fewer than n); 0 means never solved, n always."""
    passed, count = passes
    return (2 * passed * samples + count) // (2 * count)


def share_bin(passes: Passes, bins: int) -> int:
    """The bin of a pass rate among equal bins from 0 to 1. A bin includes its lower edge; the last also includes 1."""
    passed, count = passes
    return min(passed * bins // count, bins - 1)


def histogram(measured: Iterable[Passes], samples: int) -> list[int]:
    """Counts of prompts at 0/n .. n/n; prompts without a verdict are in no bin."""
    counted = Counter(outcome(passes, samples) for passes in measured if passes[1])
    return [counted[k] for k in range(samples + 1)]


def informative(measured: Iterable[Passes]) -> int:
    """Number of prompts that are solved sometimes: only their groups can have a gradient."""
    return sum(0 < passed < count for passed, count in measured)


def fewer_verdicts(measured: Iterable[Passes], samples: int) -> int:
    """Number of prompts with some verdicts, and not `samples`: a histogram counts each at the nearest of its rates."""
    return sum(0 < count < samples for _, count in measured)


def check_informative(
    measured: Mapping[str, Passes], dropped: Mapping[str, Reason], samples: int, prompts_per_step: int, *, stopped_early: bool = False
) -> None:
    """Raise `CurationError` unless the prompts that are left fill one step with informative ones. Where the pass `stopped_early`, one
    that was not solved in fewer than `samples` responses may be one of them."""
    left = [passes for key, passes in measured.items() if key not in dropped]
    found = informative(left)
    open_yet = sum(passed == 0 and count < samples for passed, count in left) if stopped_early else 0
    if found + open_yet >= prompts_per_step:
        return
    bins = ", ".join(f"{k}/{samples}: {size}" for k, size in enumerate(histogram(measured.values(), samples)))
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(dropped.values()).items()))
    raise CurationError(
        f"only {found} of the {len(measured) - len(dropped)} prompts left are solved sometimes, fewer than trainer.prompts_per_step = "
        f"{prompts_per_step} (measured: {bins}, so {informative(measured.values())} solved sometimes; dropped: {reasons or 'none'}). "
        "Add prompts that this model solves sometimes, lower trainer.prompts_per_step, or drop fewer with [curation]"
    )


def shuffle_key(seed: int, key: str) -> bytes:
    """Sorting ids by it shuffles them, whatever their order was; the front of a part is then in the front of the whole."""
    return blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()
