"""What in a run's records should worry its user, and what to try: said once, and again only after it has been well in between.

Everything comes from the records of `metrics.jsonl` alone, so that console and report say the same, and a resumed run nothing twice. What
is compared with the run's own first steps is a median of five steps, then and now, since single steps of few prompts vary by half.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polaris.reward import no_answer

Record = Mapping[str, Any]

MOST = 0.5
"""Share of responses without an answer, cut off, or of lost marks, above which little is learned."""
FEW = 5
"""Steps at the run's start, and those now, whose medians are compared."""
COLLAPSED = 0.1
"""Share of the first steps' entropy. Rewards rise along R = b - a exp(H) (Cui et al. 2025, arXiv 2505.22617): of half a nat per token, nine
tenths of what can be had for it are then spent. In 52 runs of the embedded model the lowest was 0.7 of the first steps'."""
EXPLODED, EXPLODED_NATS = 2.0, 0.5
"""Times the first steps' entropy, and nats above it: each token has 1.6 times the alternatives that it had."""
INFORMATIVE, GROUPS = 0.2, 160
"""Share of groups with a gradient, in the last steps that have so many groups: four of five prompts are drawn for nothing (the recipe asks
for a third)."""
GAP, GAP_NATS, K3 = 3.0, 0.02, 0.01
"""Times the first steps' gap, which in bfloat16 is about 0.02 nats; and a KL of engine and trainer at which runs were seen to break
(Liu and Li 2025, "When Speed Kills Stability")."""
OUTLIER, NORMS = 10.0, 20
"""Times the median of the last steps' gradient norms. In 2,060 steps of 53 runs on this project's machines the most was 3.2 times."""
SPREAD = 0.1
"""Share of the first steps' standard deviation of a reward, below which it tells responses apart no more."""
_REARMED = 20
"""Steps without a finding after which it is said again."""

_LONGER = "allow longer ones (rollout.max_response_tokens, or the stage's), or look at rollouts/ for endless repetition"
_LOST = "reward/process_lost"
_WATCHED = (("", "reward/no_answer", "response/clip_ratio"), ("held out: ", "eval/no_answer", "eval/response/clip_ratio"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a step gives to say; `warning` if it should worry. `remedy` is what to try, if there is something."""

    step: int
    text: str
    remedy: str = ""
    warning: bool = True

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is wrong at a step; of findings with one `key` in a row only the first is said."""

    key: str
    text: str
    remedy: str


class Watch:
    """Looks at the records of a run in their order."""

    def __init__(self) -> None:
        self._steps: list[Record] = []
        self._seen: set[str] = set()
        self._high: set[str] = set()
        self._found: dict[str, int] = {}
        """How many steps ago each finding was last there."""

    def look(self, record: Record) -> list[Said]:
        """What is new in one record."""
        said = list(self._shares(record))
        if "groups/drawn" not in record:
            return said
        self._steps.append(record)
        found = [finding for rule in RULES for finding in rule(self._steps)]
        said += [Said(step=record["step"], text=one.text, remedy=one.remedy) for one in found if one.key not in self._found]
        ages = {key: age + 1 for key, age in self._found.items() if age + 1 < _REARMED}
        self._found = ages | {one.key: 0 for one in found}
        return said

    def _shares(self, record: Record) -> Iterator[Said]:
        """Shares of responses: the first one of each is said, and warned of above a half."""
        for title, missing, cut in _WATCHED:
            if missing in record:
                why = ", ".join(f"{record[key]:.1%} {words}" for key, words in no_answer.keys(missing) if record.get(key))
                yield from self._share(missing, record, f"{title}{record[missing]:.1%} of the responses have no answer ({why})", "")
                limit = record[cut.replace("clip_ratio", "limit")]
                yield from self._share(cut, record, f"{title}{record[cut]:.1%} of the responses are cut off at {limit} tokens", _LONGER)
        if _LOST in record:
            said = f"at {record[_LOST]:.1%} of the responses the process that finds marked results was killed: they earn nothing by them"
            yield from self._share(_LOST, record, said, "mend reward.process.marker, or raise reward.timeout_s")

    def _share(self, key: str, record: Record, text: str, remedy: str) -> Iterator[Said]:
        share = record[key]
        if share > MOST and key not in self._high:
            yield Said(step=record["step"], text=text, remedy=remedy)
        elif share and key not in self._seen:
            yield Said(step=record["step"], text=text, warning=False)
        self._seen.add(key)
        self._high = self._high | {key} if share > MOST else self._high - {key}


def warnings(records: Iterable[Record]) -> list[Said]:
    """What was warned of in a run with these records."""
    watch = Watch()
    return [said for record in records for said in watch.look(record) if said.warning]


def entropy(steps: Sequence[Record]) -> Iterator[_Finding]:
    """The policy's entropy against that of the first steps at the same kind of sampling."""
    first, now = _then_and_now(_alike(steps), "policy/entropy") or (0.0, 0.0)
    if now < COLLAPSED * first:
        text = (
            f"entropy has collapsed to {now:.2g} nats per token, from {first:.2g} in the first steps: a prompt's responses become the same"
        )
        remedy = 'raise algorithm.clip_high or rollout.temperature (a stage: temperature = "track"), or lower optimizer.lr'
        yield _Finding("collapsed", text, remedy)
    if now > EXPLODED * first and now > first + EXPLODED_NATS:
        text = f"entropy has risen to {now:.2g} nats per token, from {first:.2g} in the first steps: the policy may be falling apart"
        remedy = 'lower optimizer.lr, rollout.temperature or algorithm.clip_high, or set algorithm.kl = "k3"; look at rollouts/'
        yield _Finding("exploded", text, remedy)


def groups(steps: Sequence[Record]) -> Iterator[_Finding]:
    """Groups without a gradient, by what most of them are."""
    taken, drawn = list[Record](), 0
    for record in reversed(steps):
        taken, drawn = [*taken, record], drawn + record["groups/drawn"]
        if drawn >= GROUPS and len(taken) >= FEW:
            break
    else:
        return
    kinds = ("informative", "all_right", "all_wrong")
    informative, right, wrong = (sum(record[f"groups/{kind}"] for record in taken) / drawn for kind in kinds)
    if informative >= INFORMATIVE:
        return
    text = f"{informative:.0%} of the last {drawn} groups teach something; {right:.0%} are solved by all responses and {wrong:.0%} by none"
    if right > wrong:
        remedy = "give harder problems, or drop solved ones: stages with drop_above, curation.drop_from, or curriculum.target"
        yield _Finding("solved", text, remedy)
    else:
        remedy = (
            "give easier problems (difficulty.samples_per_prompt with curation.drop_up_to = 0, or curriculum.target), more "
            "rollout.samples_per_prompt, or algorithm.rescue"
        )
        yield _Finding("unsolved", text, remedy)


def gap(steps: Sequence[Record]) -> Iterator[_Finding]:
    """Log-probs of the engine against those of the trainer, of the same tokens."""
    first, now = _then_and_now(steps, "mismatch/logprob_gap_mean") or (0.0, 0.0)
    _, k3 = _then_and_now(steps, "mismatch/kl_k3") or (0.0, 0.0)
    if now > max(GAP * first, GAP_NATS) or k3 > K3:
        text = (
            f"engine and trainer drift apart: their log-probs differ by {now:.2g} nats, by {first:.2g} in the first steps (k3 {k3:.2g}): "
            "training becomes off-policy"
        )
        remedy = (
            'set algorithm.correction = "sequence_mask" or "geometric_mask", model.dtype = "float16" (or "float32"), or lower optimizer.lr'
        )
        yield _Finding("gap", text, remedy)


def gradient(steps: Sequence[Record]) -> Iterator[_Finding]:
    """A gradient that is much longer than those before."""
    norms = [norm for norm in _numbers(steps[:-1][-NORMS:], "optimizer/grad_norm") if norm]  # 0: nothing was trained
    norm = _numbers(steps[-1:], "optimizer/grad_norm")
    if norm and len(norms) >= NORMS // 2 and norm[0] > OUTLIER * (usual := statistics.median(norms)):
        text = f"the gradient's norm is {norm[0]:.3g}, {norm[0] / usual:.0f} times that of the last {len(norms)} steps ({usual:.3g})"
        yield _Finding("gradient", text, "lower optimizer.grad_clip or optimizer.lr if it comes again; look at this step's rollouts/")


def saturation(steps: Sequence[Record]) -> Iterator[_Finding]:
    """Rewards behind the first one that tell responses apart no more, while no more of them are solved than at first."""
    names = [key[len("reward/") : -len("/std")] for key in steps[-1] if key.startswith("reward/") and key.endswith("/std")][1:]
    solved = _then_and_now(steps, "reward/accuracy")
    if solved is None or solved[1] > solved[0] + 0.02:
        return
    for name in names:
        spread, mean = _then_and_now(steps, f"reward/{name}/std"), _then_and_now(steps, f"reward/{name}/mean")
        if spread and mean and spread[1] < SPREAD * spread[0]:
            text = (
                f"the reward {name} is saturated at {mean[1]:.3g} (from {mean[0]:.3g}): all responses earn the same by it, and no more of "
                f"them are solved than at first ({solved[1]:.1%})"
            )
            remedy = "lower its weight in reward.function, or remove it; look at rollouts/ for what earns it"
            yield _Finding(f"saturated/{name}", text, remedy)


RULES: Sequence[Callable[[Sequence[Record]], Iterator[_Finding]]] = (entropy, groups, gap, gradient, saturation)


def _alike(steps: Sequence[Record]) -> Sequence[Record]:
    """The last steps without a stage that has begun at another temperature: entropy is that at the temperature of sampling."""
    begins = 0
    for place in range(1, len(steps)):
        before, here = steps[place - 1], steps[place]
        moved = before.get("rollout/temperature") != here.get("rollout/temperature")
        begins = place if moved and before.get("stage") != here.get("stage") else begins
    return steps[begins:]


def _then_and_now(steps: Sequence[Record], key: str) -> tuple[float, float] | None:
    """Medians over the first and the last steps that have a finite value; None before there are enough for both."""
    values = _numbers(steps, key)
    return (statistics.median(values[:FEW]), statistics.median(values[-FEW:])) if len(values) >= 2 * FEW else None


def _numbers(steps: Sequence[Record], key: str) -> list[float]:
    return [value for record in steps if (value := record.get(key)) is not None and math.isfinite(value)]
