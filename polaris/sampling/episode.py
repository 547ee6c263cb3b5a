"""Several turns in one response: after each, a function of the user's (`rollout.episode`) may write something for the policy to read.

The response is then one rollout: what the policy wrote and what it read, in the order of the context. `Rollout.mask` is False for what it
read, so the loss leaves these tokens out; their log-probs are 0. `Sampling.max_tokens` is for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import numpy as np

from polaris.distributed import watch
from polaris.doors import calling, check_call, load, short
from polaris.rollout.types import GenerationInterrupted, RolloutRequest, Sampling
from polaris.sampling.context import SamplingContext, Turn
from polaris.types import Prompt, Rollout

KEY = "rollout.episode"
Key = tuple[str, int]
"""Prompt id and sample number: the name of a rollout."""
Generate = Callable[[Sequence[RolloutRequest], Sampling, Callable[[Rollout], None] | None], list[Rollout]]
"""`Engine.generate` with the arguments that differ between calls: requests, sampling, on_finished."""


def load_episode(name: str | None) -> Callable[[Turn], str | None] | None:
    """The function behind the name. Raises `Refused` unless it takes one argument."""
    if name is None:
        return None
    function: Callable[[Turn], str | None] = load(name, KEY)
    check_call(function, f"{KEY} = {short(name)!r} must be a function of one argument, the turn: ", "turn")
    return function


@dataclass(slots=True, kw_only=True)
class Episodes:
    """The responses of one call of `draw_rollouts`, turn by turn.

    `seed` gives that of a later turn; a first turn has its request's. Of the ranks that share an engine the `first` asks the user's
    function and hands the rollouts out, to `on_finished` as soon as each has ended.
    """

    context: SamplingContext
    prompts: Mapping[str, Prompt]
    sampling: Sampling
    seed: Callable[[RolloutRequest, int], int]
    first: bool
    on_finished: Callable[[Rollout], None] | None
    before: dict[Key, Rollout] = field(default_factory=dict)
    """Of each response that goes on: all that it holds before its next turn."""
    ended: dict[Key, Rollout] = field(default_factory=dict)

    def play(self, requests: Sequence[RolloutRequest], generate: Generate) -> list[Rollout]:
        """The rollouts in the order of their requests. All that go on are drawn together. Raises `GenerationInterrupted`."""
        asked = {(request.prompt_id, request.sample): request for request in requests}
        current = list(requests)
        for number in count():
            watch.mark(f"turn {number + 1} of {len(current)} responses")
            left = self.sampling.max_tokens - min((len(rollout.tokens) for rollout in self.before.values()), default=0)
            read: dict[Key, list[int]] = {}
            turns, interrupted = list[Rollout](), False
            try:
                hear = partial(self._hear, number, read) if self.first else None
                turns = generate(current, replace(self.sampling, max_tokens=left), hear)
            except GenerationInterrupted:
                interrupted = True
            read = self._agreed(read, interrupted)
            if not read:
                break
            wholes = {(turn.prompt_id, turn.sample): self._whole(turn) for turn in turns}
            self.before = {key: followed(whole, read[key]) for key, whole in wholes.items() if key in read}
            current = [self._request(asked[key], whole, number + 1) for key, whole in self.before.items()]
        return [self.ended[key] for key in asked] if self.first else []

    def _hear(self, number: int, read: dict[Key, list[int]], turn: Rollout) -> None:
        """A turn has ended: the response has too, or it goes on with what the policy will `read`."""
        key, whole = (turn.prompt_id, turn.sample), self._whole(turn)
        answer = self._ask(number, turn, whole)
        if answer is not None and len(whole.tokens) + len(answer) < self.sampling.max_tokens:
            read[key] = answer
            return
        self.ended[key] = whole if answer is None else replace(whole, finish_reason="length")
        if self.on_finished is not None:
            self.on_finished(self.ended[key])

    def _ask(self, number: int, turn: Rollout, whole: Rollout) -> list[int] | None:
        """The tokens of what the user's function writes; None if it does not, or the response has its last turn or its last token."""
        context, rollout = self.context, self.context.config.rollout
        if whole.finish_reason != "stop" or number + 1 >= rollout.max_turns:
            return None
        assert context.episode is not None
        prompt = self.prompts[turn.prompt_id]
        tokens = [turn.tokens.tolist(), whole.tokens.tolist()]
        text, response = context.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        with calling(rollout.episode or "", KEY, f"turn {number} of prompt {prompt.id}, sample {turn.sample}"):
            answer = context.episode(Turn(number=number, text=text, response=response, prompt=prompt, rollout=whole))
            if not isinstance(answer, str | None):
                raise TypeError(f"it returned {type(answer).__name__}, and not a text or None")
            return None if answer is None else list(context.tokenizer(answer, add_special_tokens=False)["input_ids"])

    def _whole(self, turn: Rollout) -> Rollout:
        before = self.before.get((turn.prompt_id, turn.sample))
        return turn if before is None else joined(before, turn, self.sampling.max_tokens)

    def _request(self, asked: RolloutRequest, whole: Rollout, number: int) -> RolloutRequest:
        return replace(asked, prompt_tokens=(*asked.prompt_tokens, *whole.tokens.tolist()), seed=self.seed(asked, number))

    def _agreed(self, read: dict[Key, list[int]], interrupted: bool) -> dict[Key, list[int]]:
        """What is read by which response, on every rank that shares the engine. Raises `GenerationInterrupted` if a rank was."""
        world = self.context.world
        if self.context.config.rollout.tensor_parallel > 1:  # all ranks play the same number of turns
            interrupted = world.any(interrupted)
            read = dict(world.gather(list(read.items())))
        if interrupted:
            raise GenerationInterrupted
        return read


def joined(before: Rollout, turn: Rollout, most: int) -> Rollout:
    """The response with another turn, cut to `most` tokens in all; a turn that was drawn with a lower limit begins with the same tokens."""
    room = most - len(before.tokens)
    added = _appended(before, turn.tokens[:room], turn.logprobs[:room], turn.versions[:room], chosen=True)
    return replace(added, finish_reason="length" if len(turn.tokens) > room else turn.finish_reason)


def followed(rollout: Rollout, read: Sequence[int]) -> Rollout:
    """The response with tokens behind it that the policy did not choose."""
    tokens = np.array(read, np.int32)
    return _appended(rollout, tokens, np.zeros(len(read), np.float32), np.full(len(read), rollout.versions[-1], np.int32), chosen=False)


def _appended(rollout: Rollout, tokens: np.ndarray, logprobs: np.ndarray, versions: np.ndarray, *, chosen: bool) -> Rollout:
    mask = np.ones(len(rollout.tokens), bool) if rollout.mask is None else rollout.mask
    return replace(
        rollout,
        tokens=np.concatenate([rollout.tokens, tokens]),
        logprobs=np.concatenate([rollout.logprobs, logprobs]),
        versions=np.concatenate([rollout.versions, versions]),
        mask=np.concatenate([mask, np.full(len(tokens), chosen)]),
    )
