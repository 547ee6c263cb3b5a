"""Which problems of one set are also in another: pure functions over texts.

Problems match if their texts are the same (`exact_key`), or if they share a run of 13 words (`words_of`), as in GPT-3's
decontamination. Mathematics repeats itself ("where m and n are relatively prime positive integers. Find m+n."), so two rules
are added. A run that occurs in more than ten different problems of either side is a stock phrase and does not count. A match
is an overlap only if, stock phrases aside, at least half of the words of either problem lie in shared runs.
A problem of fewer than 13 words has no run and can only match exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polaris.data.normalise import exact_key, words_of

RUN = 13
MOST_PROBLEMS_OF_A_RUN = 10
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Match:
    """`here` and `there` are positions in the two sequences; `runs` is the number of 13-word runs that the two share.

    `share` is the share of a problem's words that lie in shared runs, stock phrases aside: the larger of the two.
    """

    here: int
    there: int
    exact: bool
    runs: int
    share: float

    @property
    def overlap(self) -> bool:
        """Whether the two count as one problem, by the rules above."""
        return self.exact or self.share >= LEAST_SHARE


def find_matches(here: Sequence[str], there: Sequence[str]) -> list[Match]:
    """All pairs that match, ordered by position. Time is linear in the words of both; memory holds only the runs of `there`."""
    keys_here, keys_there = [exact_key(text) for text in here], [exact_key(text) for text in there]
    runs_there = [_runs(text) for text in there]
    positions = _invert(dict(enumerate(runs_there)))
    shared = {position: found for position, text in enumerate(here) if (found := [run for run in _runs(text) if run in positions])}
    stock = _stock_phrases(positions, keys_there) | _stock_phrases(_invert(shared), keys_here)
    pairs: dict[tuple[int, int], set[str]] = defaultdict(set)
    for position, runs in shared.items():
        for run in set(runs) - stock:
            for other in positions[run]:
                pairs[position, other].add(run)
    same = _same_text(keys_here, keys_there)
    matches = []
    for pair in sorted(same | pairs.keys()):
        common = pairs.get(pair, set())
        share = max(_share(text, common, stock) for text in (_runs(here[pair[0]]), runs_there[pair[1]])) if common else 0.0
        matches.append(Match(*pair, exact=pair in same, runs=len(common), share=share))
    return matches


def find_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(position, position of the first with the same text) of every repeated text."""
    first: dict[str, int] = {}
    found = [(position, first.setdefault(exact_key(text), position)) for position, text in enumerate(texts)]
    return [(position, earlier) for position, earlier in found if position != earlier]


def _runs(text: str) -> list[str]:
    words = words_of(text)
    return [" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]


def _invert(runs_of: Mapping[int, Iterable[str]]) -> dict[str, set[int]]:
    inverted: dict[str, set[int]] = defaultdict(set)
    for position, runs in runs_of.items():
        for run in runs:
            inverted[run].add(position)
    return inverted


def _stock_phrases(positions: Mapping[str, set[int]], keys: Sequence[str]) -> set[str]:
    """Runs that occur in too many problems; copies of one problem count once."""
    crowded = ((run, found) for run, found in positions.items() if len(found) > MOST_PROBLEMS_OF_A_RUN)
    return {run for run, found in crowded if len({keys[position] for position in found}) > MOST_PROBLEMS_OF_A_RUN}


def _share(runs: Sequence[str], shared: set[str], stock: set[str]) -> float:
    """Words in shared runs over all words, both without words in stock phrases; 0 if no other words are left."""
    ordinary = set(range(len(runs) + RUN - 1)) - _covered(runs, stock)
    return len(ordinary & _covered(runs, shared)) / len(ordinary) if ordinary else 0.0


def _covered(runs: Sequence[str], chosen: set[str]) -> set[int]:
    return {word for start, run in enumerate(runs) if run in chosen for word in range(start, start + RUN)}


def _same_text(here: Iterable[str], there: Iterable[str]) -> set[tuple[int, int]]:
    positions: dict[str, list[int]] = defaultdict(list)
    for other, key in enumerate(there):
        positions[key].append(other)
    return {(position, other) for position, key in enumerate(here) for other in positions.get(key, ())}
