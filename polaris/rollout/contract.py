"""Tries whether an engine keeps the promises of `polaris.rollout.types.Engine`: `python -m polaris.rollout.contract mine:Engine`.

The engine runs a small model (`--model`, by default the embedded one) in float32 beside transformers' own, which says what is right.
Every promise is printed, with what is wrong where it is broken; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from polaris.config.model import ModelConfig
from polaris.config.rollout import RolloutConfig
from polaris.doors import calling, placed
from polaris.embedded import resolve
from polaris.errors import Refused, RunFailed
from polaris.model.load import locate_model
from polaris.rollout.checkpoint import stop_tokens
from polaris.rollout.engine import KEY, create_engine, is_in_flight, is_stepwise
from polaris.rollout.types import Engine, GenerationInterrupted, RolloutRequest, Sampling
from polaris.types import Rollout

LONGEST = 96
"""Tokens of the longest sequence."""
CLOSE = 1e-3
"""Nats by which float32 log-probs may differ."""


class Broken(RunFailed):
    """A promise does not hold; the message says what was found."""


def expect(holds: bool, found: str) -> None:
    """Raise `Broken`, with what was found, unless it holds."""
    if not holds:
        raise Broken(found)


@dataclass(slots=True)
class Trial:
    """An engine, transformers' model of the same checkpoint, and requests for both."""

    engine: Engine
    model: Any
    stops: tuple[int, ...]
    _usual: list[Rollout] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The checkpoint's weights."""
        return {name: tensor.detach() for name, tensor in self.model.named_parameters()}

    def prompt(self, length: int, seed: int = 0) -> tuple[int, ...]:
        """Any tokens of the vocabulary but those that end a sequence."""
        kinds = np.setdiff1d(np.arange(self.model.config.vocab_size), self.stops)
        return tuple(np.random.default_rng(seed).choice(kinds, length).tolist())

    def requests(self, samples: int = 4) -> list[RolloutRequest]:
        """`samples` requests for each of four prompts of 1 to 40 tokens."""
        prompts = [self.prompt(length, length) for length in (1, 5, 17, 40)]
        pairs = [(p, s) for p in range(len(prompts)) for s in range(samples)]
        return [RolloutRequest(prompt_id=f"p{p}", sample=s, prompt_tokens=prompts[p], seed=1000 * p + s) for p, s in pairs]

    def usual(self) -> list[Rollout]:
        """Responses to `requests()` by the checkpoint's weights, drawn when they are first asked for."""
        self._usual = self._usual or self.generate(self.requests())
        return self._usual

    def generate(self, requests: Sequence[RolloutRequest], temperature: float = 1.0, max_tokens: int = 24, **other: Any) -> list[Rollout]:
        """`Engine.generate`, with `other` settings of `Sampling` or functions to call."""
        cut = {key: other.pop(key) for key in ("top_k", "top_p") if key in other}
        functions = {"on_progress": lambda progress: None, "should_stop": lambda: False} | other
        return self.engine.generate(requests, Sampling(temperature=temperature, max_tokens=max_tokens, **cut), **functions)

    @torch.no_grad()
    def logprobs(self, tokens: Sequence[int], temperature: float = 1.0) -> np.ndarray:
        """Log-probs [n - 1] of tokens[1:], by transformers."""
        logits = self.model(torch.tensor([list(tokens)])).logits[0, :-1].float() / temperature
        return logits.log_softmax(-1).gather(1, torch.tensor(list(tokens))[1:, None])[:, 0].numpy()

    @contextmanager
    def changed(self) -> Iterator[dict[str, torch.Tensor]]:
        """Other weights, which transformers' model has inside the block."""
        generator, old = torch.Generator().manual_seed(0), {name: value.clone() for name, value in self.weights.items()}
        new = {name: value + (0.01 + value.abs().mean()) * torch.randn(value.shape, generator=generator) for name, value in old.items()}
        try:
            for name, value in self.weights.items():
                value.copy_(new[name])
            yield new
        finally:
            for name, value in self.weights.items():
                value.copy_(old[name])

    def expect_same(self, one: Sequence[Rollout], other: Sequence[Rollout], said: str) -> None:
        """Raise `Broken` unless both have the same tokens."""
        pairs = list(zip(one, other, strict=True))
        differ = sum(a.tokens.tolist() != b.tokens.tolist() for a, b in pairs)
        expect(not differ, f"{said}: {differ} of {len(pairs)} responses have other tokens")

    def expect_logprobs(self, requests: Sequence[RolloutRequest], rollouts: Sequence[Rollout]) -> None:
        """Raise `Broken` unless the rollouts' log-probs are those of transformers."""
        for request, rollout in zip(requests, rollouts, strict=True):
            truth = self.logprobs((*request.prompt_tokens, *rollout.tokens.tolist()), rollout.temperature)[len(request.prompt_tokens) - 1 :]
            gap = float(np.abs(rollout.logprobs - truth).max())
            expect(gap <= CLOSE, f"a log-prob differs by {gap:.3g} nats from that of transformers at temperature {rollout.temperature:g}")


def order(trial: Trial) -> None:
    """rollouts come in the order of their requests, and carry their names and seeds; no request gives no rollout"""
    requests = trial.requests()
    rollouts = trial.generate(requests, max_tokens=8)
    expect(len(rollouts) == len(requests), f"{len(rollouts)} rollouts for {len(requests)} requests")
    wanted, found = ([(one.prompt_id, one.sample, one.seed) for one in some] for some in (requests, rollouts))
    expect(found == wanted, f"(prompt_id, sample, seed) are {found[:3]}..., not {wanted[:3]}...")
    expect(trial.generate([]) == [], "no requests gave rollouts")


def shapes(trial: Trial) -> None:
    """tokens are int32, log-probs float32, versions int32, of one length, with the temperature and the version that is served"""
    for rollout in trial.generate(trial.requests(), temperature=1.25, max_tokens=8):
        kinds = [str(array.dtype) for array in (rollout.tokens, rollout.logprobs, rollout.versions)]
        expect(kinds == ["int32", "float32", "int32"], f"tokens, logprobs and versions are {', '.join(kinds)}")
        lengths = {array.shape for array in (rollout.tokens, rollout.logprobs, rollout.versions)}
        expect(lengths == {(len(rollout.tokens),)} and len(rollout.tokens) > 0, f"their shapes are {lengths}")
        expect(rollout.temperature == 1.25, f"the temperature is {rollout.temperature}, not 1.25")
        expect(set(rollout.versions.tolist()) == {trial.engine.version}, f"versions are {rollout.versions}, not {trial.engine.version}")


def ends(trial: Trial) -> None:
    """a response ends with the first end-of-sequence token, as "stop", or after max_tokens or at max_model_len, as "length" """
    for rollout in trial.generate(trial.requests(samples=8), temperature=2.0, max_tokens=24):
        stopped, tokens = rollout.finish_reason == "stop", rollout.tokens.tolist()
        expect(not set(tokens[:-1]) & set(trial.stops), "an end-of-sequence token stands inside a response")
        expect(stopped == (tokens[-1] in trial.stops), f"finish_reason is {rollout.finish_reason!r} where the last token is {tokens[-1]}")
        expect(len(tokens) == 24 if not stopped else len(tokens) <= 24, f"{len(tokens)} tokens, where max_tokens is 24")
    long = RolloutRequest(prompt_id="long", sample=0, prompt_tokens=trial.prompt(LONGEST - 3), seed=0)
    (rollout,) = trial.generate([long])
    expect(len(rollout.tokens) <= 3, f"prompt and response have {LONGEST - 3} + {len(rollout.tokens)} tokens of {LONGEST}")


def seeds(trial: Trial) -> None:
    """a response depends on its own seed, not on the other requests; other seeds give other responses"""
    requests = trial.requests()
    rollouts = trial.generate(requests, temperature=1.5)
    trial.expect_same(rollouts, trial.generate(requests[::-1], temperature=1.5)[::-1], "the same requests in another order")
    trial.expect_same(rollouts[5:6], trial.generate(requests[5:6], temperature=1.5), "the same request alone")
    different = {tuple(rollout.tokens.tolist()) for rollout in rollouts[:4]}
    expect(len(different) > 1, "four seeds gave the same response at temperature 1.5")


def logprobs(trial: Trial) -> None:
    """log-probs are those of transformers' model, at the temperature that was sampled at"""
    requests = trial.requests()
    trial.expect_logprobs(requests, trial.usual())
    for temperature in (0.7, 1.5):
        trial.expect_logprobs(requests, trial.generate(requests, temperature))


def truncation(trial: Trial) -> None:
    """top_k and top_p cut the distribution, and log-probs are those of what is left"""
    requests = trial.requests(samples=2)
    for cut in ({"top_k": 1}, {"top_p": 1e-6}):
        for request, rollout in zip(requests, trial.generate(requests, max_tokens=4, **cut), strict=True):
            with torch.no_grad():
                best = int(trial.model(torch.tensor([list(request.prompt_tokens)])).logits[0, -1].argmax())
            expect(int(rollout.tokens[0]) == best, f"{cut} did not give the most probable token")
            expect(float(np.abs(rollout.logprobs).max()) <= CLOSE, f"{cut} leaves one token, whose log-prob is {rollout.logprobs[0]:.3g}")


def heard(trial: Trial) -> None:
    """on_finished is called once with each rollout, and on_progress with all of them at the end"""
    requests, finished, progress = trial.requests(), list[Rollout](), list[Any]()
    rollouts = trial.generate(requests, max_tokens=8, on_finished=finished.append, on_progress=progress.append)
    by_name = {(rollout.prompt_id, rollout.sample): rollout for rollout in finished}
    expect(len(finished) == len(by_name) == len(requests), f"on_finished was called {len(finished)} times for {len(requests)} rollouts")
    trial.expect_same(rollouts, [by_name[rollout.prompt_id, rollout.sample] for rollout in rollouts], "what on_finished was told")
    last = (progress[-1].finished, progress[-1].total, progress[-1].tokens) if progress else None
    wanted = (len(requests), len(requests), sum(len(rollout.tokens) for rollout in rollouts))
    expect(last == wanted, f"the last progress was {last}, not {wanted}")


def stops(trial: Trial) -> None:
    """where should_stop is true, generate raises GenerationInterrupted, and the engine can be used again"""
    requests, polls, finished = trial.requests(), count(), list[Rollout]()
    before = trial.usual()
    try:
        trial.generate(requests, max_tokens=48, should_stop=lambda: next(polls) >= 3, on_finished=finished.append)
    except GenerationInterrupted:
        trial.expect_same(before, trial.generate(requests), "after an interruption")
        return
    raise Broken(f"generate went on to its end, and asked should_stop {next(polls)} times")


def steps(trial: Trial) -> None:
    """an engine that steps (`Stepwise`) draws the same where requests come one by one, and gives the beginnings of what it aborts"""
    engine, requests = trial.engine, trial.requests()
    if not is_stepwise(engine):
        return
    sampling, whole, found = Sampling(temperature=1.5, max_tokens=24), trial.generate(requests, temperature=1.5), list[Rollout]()
    for request in requests:
        engine.submit([request], sampling)
        found += engine.step()
    while engine.running:
        found += engine.step()
    by_name = {(rollout.prompt_id, rollout.sample): rollout for rollout in found}
    trial.expect_same(whole, [by_name[rollout.prompt_id, rollout.sample] for rollout in whole], "requests that came one by one")
    engine.submit(requests, sampling)
    ended = [rollout for _ in range(5) for rollout in engine.step()]
    cut = engine.abort()
    expect(len(cut) > 0 and len(ended) + len(cut) <= len(requests) and not engine.running, f"{len(cut)} of {len(requests)} were cut off")
    expect({rollout.finish_reason for rollout in cut} <= {"abort"}, 'what is cut off does not end with "abort"')
    for rollout in cut:
        same = next(one for one in whole if (one.prompt_id, one.sample) == (rollout.prompt_id, rollout.sample))
        expect(rollout.tokens.tolist() == same.tokens[: len(rollout.tokens)].tolist(), "what is cut off is no beginning of the response")
    short = [replace(request, max_tokens=3) for request in requests]
    expect(max(len(rollout.tokens) for rollout in trial.generate(short)) == 3, "a request's own max_tokens = 3 was not kept")
    trial.expect_same(whole, trial.generate(requests, temperature=1.5), "after requests were aborted")


def refuses(trial: Trial) -> None:
    """a prompt that is empty, too long or outside the vocabulary is a ValueError before anything runs"""
    fits, told = trial.requests(samples=1)[0], list[Any]()
    for said, tokens in {
        "empty": (),
        "too long": trial.prompt(LONGEST),
        "outside the vocabulary": (trial.model.config.vocab_size + 1000,),
    }.items():
        try:
            bad = RolloutRequest(prompt_id="bad", sample=0, prompt_tokens=tokens, seed=0)
            trial.generate([fits, bad], on_finished=told.append, on_progress=told.append)
        except ValueError:
            expect(not told, f"something ran before the prompt that is {said} was refused")
            continue
        raise Broken(f"a prompt that is {said} was not refused")


def score(trial: Trial) -> None:
    """score gives the log-probs of a text at temperature 1"""
    tokens = trial.prompt(40)
    found = np.asarray(trial.engine.score(tokens))
    expect(found.shape == (39,), f"40 tokens have log-probs of shape {found.shape}")
    gap = float(np.abs(found - trial.logprobs(tokens)).max())
    expect(gap <= CLOSE, f"a log-prob differs by {gap:.3g} nats from that of transformers")


def generators(trial: Trial) -> None:
    """random generators of the trainer are left alone"""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    trial.generate(trial.requests(), max_tokens=8)
    same = torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    expect(same, "generate has drawn from torch's or numpy's global generator")


def sleeps(trial: Trial) -> None:
    """after sleep (twice), wake (twice) and load_weights the engine is as before"""
    requests, before = trial.requests(), trial.usual()
    for act in (trial.engine.sleep, trial.engine.sleep, trial.engine.wake, trial.engine.wake):
        act()
    trial.engine.load_weights(iter(trial.weights.items()), trial.engine.version)
    trial.expect_same(before, trial.generate(requests), "after sleep and wake")


def loads(trial: Trial) -> None:
    """load_weights replaces all weights and the version, and nothing of the old ones is used"""
    requests, tokens, version = trial.requests(), trial.prompt(40), trial.engine.version
    before = trial.usual()
    trial.engine.score(tokens)  # a cache of it would be that of the old weights
    with trial.changed() as new:
        trial.engine.load_weights(iter(new.items()), version + 7)
        expect(trial.engine.version == version + 7, f"version is {trial.engine.version} after {version + 7} was loaded")
        gap = float(np.abs(trial.engine.score(tokens) - trial.logprobs(tokens)).max())
        expect(gap <= CLOSE, f"with new weights a log-prob of a scored text is off by {gap:.3g} nats")
        after = trial.generate(requests)
        trial.expect_logprobs(requests, after)
        expect({int(v) for rollout in after for v in rollout.versions} == {version + 7}, "rollouts do not carry the new version")
    trial.engine.load_weights(iter(trial.weights.items()), version)
    trial.expect_same(before, trial.generate(requests), "with the first weights again")


def exchanges(trial: Trial) -> None:
    """an engine that takes weights in flight (`InFlight`) goes on under them; each token has the version of the weights that drew it"""
    engine, requests, version = trial.engine, trial.requests(), trial.engine.version
    if not is_in_flight(engine):
        return
    engine.submit(requests, Sampling(temperature=1.5, max_tokens=24))
    ended = [rollout for _ in range(6) for rollout in engine.step()]
    first = [replace(requests[0], prompt_id="first", seed=9)]
    with trial.changed() as new:
        engine.exchange_weights(iter(new.items()), version + 7)
        expect(trial.engine.version == version + 7, f"version is {trial.engine.version} after {version + 7} came in flight")
        engine.submit_first(first, Sampling(temperature=1.0, max_tokens=2))
        soon = [rollout for _ in range(3) for rollout in engine.step()]
        expect("first" in {rollout.prompt_id for rollout in soon}, "submit_first let others go first")
        ended += soon
        while engine.running:
            ended += engine.step()
        after = _expect_versions(trial, [*requests, *first], ended, version + 7)
    trial.engine.load_weights(iter(trial.weights.items()), version)
    before = _expect_versions(trial, [*requests, *first], ended, version)
    expect(before & after != set(), "no response that ran when weights came has tokens of both versions")
    expect(len(before | after) == len(ended) == len(requests) + 1, f"{len(ended)} of {len(requests) + 1} responses ended")


def _expect_versions(trial: Trial, requests: Sequence[RolloutRequest], rollouts: Sequence[Rollout], version: int) -> set[tuple[str, int]]:
    """Raise `Broken` unless the tokens of `version` have the log-probs of transformers' model as it is; the responses that have any."""
    by_name, found = {(request.prompt_id, request.sample): request for request in requests}, set[tuple[str, int]]()
    for rollout in rollouts:
        request = by_name[rollout.prompt_id, rollout.sample]
        truth = trial.logprobs((*request.prompt_tokens, *rollout.tokens.tolist()), rollout.temperature)[len(request.prompt_tokens) - 1 :]
        gap = np.abs(rollout.logprobs - truth)[rollout.versions == version]
        expect(gap.max(initial=0.0) <= CLOSE, f"a log-prob of a token of version {version} is off by {gap.max(initial=0.0):.3g} nats")
        expect(bool((np.diff(rollout.versions) >= 0).all()), f"versions of a response are {rollout.versions}")
        found |= {(rollout.prompt_id, rollout.sample)} if len(gap) else set()
    return found


def incomplete(trial: Trial) -> None:
    """load_weights with a weight that is missing is a RuntimeError; close may be called twice"""
    try:
        trial.engine.load_weights(list(trial.weights.items())[:-1], trial.engine.version + 1)
    except RuntimeError:
        trial.engine.close()
        trial.engine.close()
        return
    raise Broken("weights without the last one were taken")


PROMISES: tuple[Callable[[Trial], None], ...] = (
    *(order, shapes, ends, seeds, logprobs, truncation, heard, stops, steps, refuses, score, generators, sleeps, loads, exchanges),
    incomplete,  # comes last: it closes the engine
)


def try_engine(name: str, folder: Path, promises: Sequence[Callable[[Trial], None]] = PROMISES) -> Iterator[tuple[str, str]]:
    """Each promise by its name, with what is wrong; "" where it holds.

    Raises:
        Refused: the class lacks a member, or the engine cannot be built.
    """
    rollout, model = RolloutConfig(engine=name, max_concurrent=8, kv_cache_mib=64), ModelConfig(dtype="float32")
    engine = create_engine(rollout, folder, model, max_model_len=LONGEST, seed=0)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    trial = Trial(engine, reference, stop_tokens(folder))
    try:
        for promise in promises:
            said = ""
            try:
                with calling(name, KEY, promise.__name__):
                    promise(trial)
            except RunFailed as error:
                said = str(error)
            yield promise.__name__, said
    finally:
        engine.close()


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 all promises hold; 1 one does not; 2 the engine cannot be tried."""
    parser = argparse.ArgumentParser(prog="python -m polaris.rollout.contract", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("engine", help="module:Class, found in this folder or on Python's path; or vllm, or transformers")
    parser.add_argument("--model", default="embedded:model", help="checkpoint to try it with; a small one (default: embedded:model)")
    options = parser.parse_args(arguments)
    said, broken = {promise.__name__: (promise.__doc__ or "").strip() for promise in PROMISES}, 0
    try:
        folder = locate_model(ModelConfig(path=resolve(options.model), dtype="float32")).folder
        for promise, found in try_engine(placed(options.engine, Path.cwd()), folder):
            broken += bool(found)
            print(f"{'BROKEN' if found else 'holds '}  {promise}: {said[promise]}", *filter(None, [found]), sep="\n        ", flush=True)
    except Refused as error:
        print(f"polaris: {error}", file=sys.stderr)
        return 2
    print(f"{len(PROMISES) - broken} of {len(PROMISES)} promises hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
