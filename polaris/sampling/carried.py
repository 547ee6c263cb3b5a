"""What a step has begun and not finished: its prompts are the first of the next step (`rollout.oversample`, `rollout.carry_over`).

A prompt that is carried over keeps its responses. Those that have ended wait for the others of their group; those that were cut off go on
under the next weights behind the tokens they have, and each token keeps the log-prob and the version of the weights that drew it. Nothing
is drawn again because it was long, so what is trained on has the lengths of what is drawn.

Without `rollout.carry_over` a prompt's responses are all drawn anew, with the random numbers of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.rollout.types import RolloutRequest, request_of, request_seed
from polaris.sampling.carried_file import read, write
from polaris.types import Group, Prompt, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A prompt that was first drawn in step `step`, whose seeds its responses have.

    `scored` have ended and are graded, `begun` were cut off ("abort"); the others have no token yet.
    """

    prompt_id: str
    step: int
    scored: tuple[ScoredRollout, ...] = ()
    begun: tuple[Rollout, ...] = ()

    @property
    def rollouts(self) -> list[Rollout]:
        """All that there is of its responses."""
        return [*(one.rollout for one in self.scored), *self.begun]

    def requests(self, prompt: Prompt, samples: int, seed: int, limit: int) -> list[RolloutRequest]:
        """For each of its `samples` responses, of at most `limit` tokens, that has not ended."""
        ended = {one.rollout.sample for one in self.scored}
        begun = {rollout.sample: rollout for rollout in self.begun}
        fresh = [request_of(prompt, sample, seed, "train", self.step) for sample in range(samples) if sample not in ended]
        return [continued(one, begun[one.sample], seed, self.step, limit) if one.sample in begun else one for one in fresh]


def requests_of(started: Iterable[Started], prompts: Mapping[str, Prompt], config: RunConfig) -> list[RolloutRequest]:
    """For every response to the started prompts that has not ended, prompt after prompt."""
    samples, limit = config.rollout.samples_per_prompt, config.rollout.max_response_tokens
    return [request for one in started for request in one.requests(prompts[one.prompt_id], samples, config.seed, limit)]


def continued(request: RolloutRequest, begun: Rollout, seed: int, step: int, limit: int) -> RolloutRequest:
    """The request for the rest of a response: its tokens so far are part of the prompt, and its random numbers are others."""
    return replace(
        request,
        prompt_tokens=(*request.prompt_tokens, *begun.tokens.tolist()),
        seed=request_seed(seed, f"train/after-{len(begun.tokens)}", step, request.prompt_id, request.sample),
        max_tokens=limit - len(begun.tokens),
    )


def joined(begun: Rollout, rest: Rollout) -> Rollout:
    """The whole response, each token with its own log-prob and version."""
    arrays = {name: np.concatenate([getattr(begun, name), getattr(rest, name)]) for name in ("tokens", "logprobs", "versions")}
    return replace(rest, seed=begun.seed, **arrays)


@dataclass(slots=True)
class Carried:
    """What the last step has left, the same on every rank; a part of a checkpoint. Texts and arrays of what has ended are on rank 0, those
    of what was cut off on every rank: any engine may go on with it.

    `facts` are metrics of that step, and `generated` the tokens that the policy has drawn in it.
    """

    started: tuple[Started, ...] = ()
    facts: dict[str, float] = field(default_factory=dict)
    generated: int = 0

    def save(self, folder: Path) -> None:
        """Write `carried.parquet`; nothing where there is nothing."""
        write(folder, [(one.prompt_id, one.step, one.scored, one.begun) for one in self.started])

    def begin_anew(self) -> None:
        """Keep the prompts, and nothing of their responses."""
        self.started = tuple(Started(prompt_id=one.prompt_id, step=one.step) for one in self.started)

    def keep(self, prompt_ids: Collection[str]) -> None:
        """Forget all other prompts."""
        self.started = tuple(one for one in self.started if one.prompt_id in prompt_ids)

    def load(self, folder: Path) -> None:
        """Hold what `save` wrote."""
        self.started = tuple(Started(prompt_id=name, step=step, scored=scored, begun=begun) for name, step, scored, begun in read(folder))


def usable(started: Iterable[Started], version: int, rollout: RolloutConfig) -> tuple[list[Started], int]:
    """What can go on with the weights of `version` and the settings of `rollout`, and how many responses cannot and begin anew.

    Those of a prompt begin anew where a token of one is too old, or one was drawn at another temperature or to another length: the
    temperature moves with rollout.temperature = "track", everything else with --change.
    """
    found, restarted = list[Started](), 0
    for one in started:
        if not all(_fits(response, version, rollout) for response in one.rollouts):
            restarted += len(one.rollouts)
            one = Started(prompt_id=one.prompt_id, step=one.step)
        found.append(one)
    return found, restarted


def _fits(response: Rollout, version: int, rollout: RolloutConfig) -> bool:
    limit, tokens = rollout.max_response_tokens, len(response.tokens)
    length = {"stop": tokens <= limit, "length": tokens == limit, "abort": tokens < limit}[response.finish_reason]
    fresh = version - response.version <= (rollout.max_staleness if rollout.carry_over else 0)
    return length and fresh and response.temperature == rollout.temperature and response.sample < rollout.samples_per_prompt


def due(started: Iterable[Started], step: int, version: int, most: int) -> frozenset[str]:
    """The prompts that `step` must finish with the weights of `version`: in the next step their tokens would be more than `most` versions
    old, or they have waited for `most` steps. Else those with the longest responses could wait for ever, and never be trained on."""
    return frozenset(
        one.prompt_id for one in started if step - one.step >= most or any(version + 1 - rollout.version > most for rollout in one.rollouts)
    )


def divide(
    started: Sequence[Started], samples: int, teach: Callable[[Started], bool], places: int | None
) -> tuple[list[Started], list[Started]]:
    """What a step takes of the prompts that it has `started`, and what it leaves for the next one.

    It takes complete groups of `samples` responses, in the order of the prompts: all that teach nothing, and of the others the first
    `places`, or all without `places`.
    """
    taken, left, full = list[Started](), list[Started](), 0
    for one in started:
        complete = len(one.scored) == samples
        teaches = complete and places is not None and teach(one)
        fits = complete and (not teaches or places is None or full < places)
        full += teaches
        (taken if fits else left).append(one)
    return taken, left


def facts_of(groups: Sequence[Group], cut: Sequence[Started], left: Sequence[Started], restarted: int, version: int) -> dict[str, float]:
    """Metrics of a step that took `groups`: what was `cut` off at its end, and what is `left` of it for the next step; the mean tokens of a
    response that was taken and of one that is carried over, so far; the versions between the step's weights and those of a token."""
    taken = [scored.rollout for group in groups for scored in group.rollouts]
    kept, lost = ([len(rollout.tokens) for one in some for rollout in one.rollouts] for some in (left, cut))
    return {
        "rollout/carried_prompts": len(left),
        "rollout/carried_responses": len(kept),
        "rollout/carried_length_mean": sum(kept) / max(1, len(kept)),
        "rollout/taken_length_mean": sum(len(rollout.tokens) for rollout in taken) / len(taken),
        "rollout/dropped_tokens": sum(lost) - sum(kept),
        "rollout/restarted": restarted,
        **staleness(groups, version),
    }


def staleness(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Versions between the weights of `version` and those that drew the groups' tokens."""
    ages = np.concatenate([version - scored.rollout.versions for group in groups for scored in group.rollouts])
    return {"rollout/staleness_mean": float(ages.mean()), "rollout/staleness_max": int(ages.max())}
