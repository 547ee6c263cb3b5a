"""Samples from a checkpoint, drawn by a rollout engine in this process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from polaris.checkpoint.branch import served
from polaris.config.model import RopeConfig
from polaris.data.prompts import encode_texts
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.evaluation.samples import Sample
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.source import Hooks, Wanted
from polaris.evaluation.suites import Suite
from polaris.evaluation.trained import graded_otherwise, trained_otherwise
from polaris.model.check import check_weights
from polaris.model.folder import transformers_config
from polaris.model.identity import model_identity
from polaris.model.load import load_tokenizer, locate_model
from polaris.model.rope import resolve_rope
from polaris.reward.thinking import Thinking, by_template
from polaris.rollout.checkpoint import check_vocabulary, stop_tokens
from polaris.rollout.engine import check_engine, create_engine
from polaris.rollout.types import Progress, RolloutRequest, Sampling
from polaris.types import Rollout


class EngineSource:
    """Samples from a checkpoint; its engine exists only while `draw` runs.

    Raises:
        ValueError: no such model, weights that are missing, no chat template, too few positions, or an engine that is not installed.
    """

    def __init__(self, settings: EvalSettings, suites: Sequence[Suite]) -> None:
        self._settings = settings
        self._engine = check_engine(settings.rollout)
        self._model = locate_model(replace(settings.model, path=served(resolve(settings.model.path))))
        if self._engine != "vllm" or _is_plain_text(transformers_config(self._model.folder)):
            check_weights(self._model.folder)
        stop_tokens(self._model.folder)
        self._tokenizer = load_tokenizer(self._model.folder, settings.model.chat_template)
        if not self._tokenizer.chat_template:
            raise Refused(f"{settings.model.path} has no chat template; use an instruction-tuned model, or add chat_template.jinja")
        self._prompts: dict[tuple[str, str], tuple[int, ...]] = {}
        texts = []
        for suite in suites:
            encoded = encode_texts(suite.problems, self._tokenizer, "", settings.chat_template_options)
            self._prompts |= {(suite.name, p.id): tokens for p, (_, tokens) in zip(suite.problems, encoded, strict=True)}
            texts += [text for text, _ in encoded]
        self._thinking = by_template(texts)
        if not all(self._prompts.values()):
            raise Refused(f"{settings.model.path}: the tokenizer gives no tokens; does its folder hold tokenizer.json?")
        check_vocabulary(self._prompts.values(), self._model.vocab_size, self._tokenizer)
        self._longest_prompt = max(map(len, self._prompts.values()))
        self._max_model_len = self._longest_prompt + settings.max_response_tokens
        for factor in settings.rope_factors:
            self._check_positions(factor)

    def identity(self) -> dict[str, Any]:
        return {"engine": self._engine, "dtype": self._settings.model.dtype, "model": model_identity(self._model.folder)}

    def thinking(self) -> Thinking | None:
        return self._thinking

    def describe(self) -> dict[str, str]:
        given = self._settings.model.path
        read = f" = {self._model.folder}" if served(given) != given else ""
        facts = {"model": f"{given}{read} ({self._settings.model.dtype})", "engine": self._engine}
        if trained := trained_otherwise(self._settings):
            facts["trained with"] = f"{trained} (this evaluation differs)"
        if graded := graded_otherwise(self._settings):
            facts["graded by"] = graded
        for factor in self._settings.rope_factors:
            reach = self._positions(factor, None)
            if self._max_model_len > reach:
                name = f"positions, YaRN {factor:g}" if factor > 1 else "positions"
                facts[name] = f"sequences reach {self._max_model_len} tokens; beyond {reach} the model extrapolates without scaling"
        return facts

    def draw(self, rope_factor: float, wanted: Sequence[Wanted], hooks: Hooks) -> None:
        settings = self._settings

        def finished(rollout: Rollout) -> None:
            one = wanted[int(rollout.prompt_id)]
            hooks.on_sample(
                Sample(
                    key=one.key,
                    seed=one.seed,
                    response=str(self._tokenizer.decode(rollout.tokens.tolist(), skip_special_tokens=True)),
                    tokens=len(rollout.tokens),
                    finish_reason=rollout.finish_reason,
                )
            )

        def progress(state: Progress) -> None:
            hooks.on_progress(state.finished, state.tokens)

        requests = [
            RolloutRequest(prompt_id=str(index), sample=one.key.sample, prompt_tokens=self._prompts[one.key[:2]], seed=one.seed)
            for index, one in enumerate(wanted)
        ]
        sampling = Sampling(temperature=settings.temperature, max_tokens=settings.max_response_tokens, top_k=settings.top_k)
        with hooks.at_once():
            engine = create_engine(
                settings.rollout,
                str(self._model.folder),
                settings.model,
                max_model_len=self._max_model_len,
                seed=settings.seed,
                rope=self._rope(rope_factor, self._max_model_len),
            )
        try:
            engine.generate(requests, sampling, on_progress=progress, should_stop=hooks.should_stop, on_finished=finished)
        finally:
            engine.close()

    def _positions(self, factor: float, allowed: int | None) -> int:
        try:
            return resolve_rope(self._model.folder, self._rope(factor, allowed)).max_positions
        except Refused as error:  # name the fields of the evaluation
            named = re.sub(r"\brope\.(factor)?(?=[a-z_ ,:])", lambda field: "final.rope_factors" if field[1] else "final.", str(error))
            raise Refused(named) from None

    def _check_positions(self, factor: float) -> None:
        """Refuse sequences longer than the model's positions, as training does, unless extrapolation is allowed."""
        settings, needed = self._settings, self._max_model_len
        reach = self._positions(factor, settings.max_positions)
        with_yarn = f" with YaRN {factor:g}" if factor > 1 else ""
        if needed > reach:
            raise Refused(
                f"the longest prompt and final.max_response_tokens = {self._longest_prompt} + {settings.max_response_tokens} tokens exceed "
                f"the {reach} positions of {settings.model.path}{with_yarn}; set final.max_response_tokens to "
                f"{max(0, reach - self._longest_prompt)} or less, final.rope_factors to {needed / reach * factor:.2g} or more for YaRN, or "
                f"final.max_positions to {needed} to go beyond"
            )

    def _rope(self, factor: float, max_positions: int | None) -> RopeConfig:
        if factor == 1:
            return RopeConfig(max_positions=max_positions)
        settings = self._settings
        return RopeConfig(
            factor=factor,
            original_positions=settings.original_positions,
            attention_factor=settings.attention_factor,
            max_positions=max_positions,
        )


def _is_plain_text(config: PreTrainedConfig) -> bool:
    """Whether `check_weights` knows such a model; vLLM itself checks quantised models and those with images."""
    return config.get_text_config(decoder=True) is config and getattr(config, "quantization_config", None) is None
