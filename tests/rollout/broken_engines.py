"""One engine for each promise of `polaris.rollout.contract`, which breaks it; and classes that are no engines."""

from dataclasses import replace

import numpy as np
import torch

from polaris.rollout.transformers_engine import TransformersEngine
from polaris.rollout.types import Engine, Sampling


class Order(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return super().generate(requests, sampling, **functions)[::-1]


class Shapes(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return [replace(r, tokens=r.tokens.astype(np.int64)) for r in super().generate(requests, sampling, **functions)]


class Ends(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return [replace(r, finish_reason="length") for r in super().generate(requests, sampling, **functions)]


class Seeds(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        counted = [replace(request, seed=index) for index, request in enumerate(requests)]
        return super().generate(counted, sampling, **functions)


class Logprobs(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return [replace(r, logprobs=r.logprobs * np.float32(r.temperature)) for r in super().generate(requests, sampling, **functions)]


class Truncation(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return super().generate(requests, Sampling(temperature=sampling.temperature, max_tokens=sampling.max_tokens), **functions)


class Heard(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return super().generate(requests, sampling, **{**functions, "on_finished": None})


class Stops(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        return super().generate(requests, sampling, **{**functions, "should_stop": lambda: False})


class Refuses(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        cut = [replace(request, prompt_tokens=request.prompt_tokens[:50] or (2,)) for request in requests]
        return super().generate(cut, sampling, **functions)


class Score(TransformersEngine):
    def score(self, tokens):
        return super().score(tokens)[1:]


class Generators(TransformersEngine):
    def generate(self, requests, sampling, **functions):
        torch.rand(1)
        return super().generate(requests, sampling, **functions)


class Sleeps(TransformersEngine):
    def sleep(self):
        self._model = None


class Loads(TransformersEngine):
    def load_weights(self, weights, version):
        last = [name for name, _ in self._model.named_parameters()][-2]
        kept = self._model.get_parameter(last).clone()
        super().load_weights(((name, kept if name == last else tensor) for name, tensor in weights), version)


class Incomplete(TransformersEngine):
    def load_weights(self, weights, version):
        for name, tensor in weights:
            self._model.get_parameter(name).data.copy_(tensor)
        self._version = version


class WithoutScore(Engine):
    def __init__(self, folder, *, model, rollout, max_model_len, seed, rope): ...

    version = 0
    generate = load_weights = sleep = wake = close = TransformersEngine.close


class WithoutOptional:
    version = 0
    score = generate = load_weights = sleep = wake = close = TransformersEngine.close


class MadeOtherwise(TransformersEngine):
    def __init__(self, folder, model): ...


def function(): ...


class Steps(TransformersEngine):
    def abort(self):
        return [replace(rollout, tokens=rollout.tokens[1:]) for rollout in super().abort()]


class Exchanges(TransformersEngine):
    submit_first = TransformersEngine.submit

    def exchange_weights(self, weights, version):
        self.load_weights(weights, version)  # what runs keeps its cache of the old ones
