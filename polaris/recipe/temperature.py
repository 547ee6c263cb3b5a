"""The temperature probe: accuracy and diversity of the engine's weights at one temperature after another.

`probe_temperature` measures the whole grid and finds the zones. `retune` raises the present temperature until diversity is what it was
before training. Both use the same seeds at all temperatures and write each reading at once, so a killed probe repeats only the
unfinished temperature. The result of an earlier call is returned. If only the rule of choice changes, the readings are kept.
Each response is sampled from softmax(logits / temperature), as in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polaris.algorithm.diversity import distinct_tokens, distinct_words, word_grams_per_token_gram
from polaris.algorithm.rates import wilson_interval
from polaris.algorithm.zones import above_zero, find_zones, first_collapsed
from polaris.config.schema import RunConfig
from polaris.data.digest import digest
from polaris.errors import Refused
from polaris.files import write_atomically
from polaris.model.identity import model_settings
from polaris.results import Result
from polaris.reward.rewards import identity
from polaris.rollout.types import Sampling
from polaris.run.record import response_facts
from polaris.sampling.context import SamplingContext
from polaris.sampling.draw import Draw, draw_groups
from polaris.sampling.guards import stop_if_grading_fails, stop_without_answers
from polaris.types import Group, Prompt

STEP = 0.05
"""Grid of `retune`."""
FEWEST_WORD_GRAMS = 0.2
"""Per 4-gram of tokens; with fewer, words say little: short answers, or a script without spaces."""

Kind = Literal["words", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One temperature: avg@n with its 95 % interval over prompts, and shares of distinct 4-grams."""

    temperature: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    words: float
    tokens: float
    length_mean: float
    clip_ratio: float
    per_prompt: list[float]
    """avg@n of each prompt."""
    word_grams: float | None = None
    """4-grams of words per 4-gram of tokens; None in results of older versions."""


class TemperatureProbe:
    """Readings over `prompts_of` the prompts, responses of at most `max_tokens`; `path` is where the result will be.

    `kind` is the diversity to restore. None takes `probe.diversity`, and if that is "auto", the responses decide.
    """

    def __init__(
        self,
        context: SamplingContext,
        prompts: Sequence[Prompt],
        max_tokens: int,
        path: Path,
        *,
        kind: Kind | None = None,
    ) -> None:
        config = context.config
        self.context = context
        self._kind = kind or config.probe.diversity
        self._recorded: Kind = "words"
        self.max_tokens = max_tokens
        self.prompts = prompts_of(config, prompts)
        measurement = {
            **model_settings(config),
            "prompts": len(self.prompts),
            "digest": digest(self.prompts),
            "samples_per_prompt": config.probe.samples_per_prompt,
            "max_response_tokens": max_tokens,
            "require_thinking": config.reward.require_thinking,
            **identity(config.reward),
            "seed": config.seed,
        }
        self.settings = measurement | {
            "temperatures": list(config.probe.temperatures),
            "diversity": self._kind,
            "tolerance": config.probe.tolerance,
        }
        self._path = path
        self._unfinished = Result(path.with_name(f"unfinished-{path.name}"), measurement | {"version": context.engine.version})
        kept = self._unfinished.read_if_valid("readings")
        self._readings = _readings(kept) if kept else {}

    def result(self, source: str, **wanted: float) -> dict[str, Any] | None:
        """The finished result, if there is one and it was decided in this way.

        Of a result of the same weights that was decided otherwise, only the readings are kept.

        Raises:
            ValueError: it is of another model, or other prompts or settings, or came about in another way.
        """
        content = Result(self._path).read("settings", "temperature", "readings")
        if content is None:
            return None
        self._recorded = content["settings"]["diversity"]
        readings = _readings(content)
        kind = self.kind(readings.values())
        result = Result(self._path, {**self.settings, "diversity": kind, "source": source, **wanted})
        if result.changes(content) and not self._unfinished.changes(content):
            self._readings |= readings
            return None
        result.refuse_changes(content)
        return content

    def at(self, temperature: float) -> Reading:
        """The reading at a temperature; drawn if there is none yet. Raises `GenerationInterrupted`."""
        if temperature in self._readings:
            return self._readings[temperature]
        reading = measure(self.context, self.prompts, Sampling(temperature=temperature, max_tokens=self.max_tokens))
        diversity(reading, self.kind([reading]))  # refuses before more is drawn
        self._readings[temperature] = reading
        if self.context.world.is_main:
            self._unfinished.write(self._record(self._readings.values()))
        shares = f"distinct words {reading.words:.3f}, tokens {reading.tokens:.3f}"
        self.context.console.note(f"temperature {temperature:g}: accuracy {100 * reading.accuracy:.1f}%, {shares}")
        return reading

    def kind(self, readings: Iterable[Reading]) -> Kind:
        """The kind of diversity that is compared; with "auto" the coolest responses decide, which are the most like text.

        Readings of an older version do not say how many words they had: then the kind stays the recorded one.
        """
        if self._kind != "auto":
            return self._kind
        grams = min(readings, key=lambda reading: reading.temperature).word_grams
        return self._recorded if grams is None else "words" if grams >= FEWEST_WORD_GRAMS else "tokens"

    def finish(self, source: str, chosen: Reading, readings: Sequence[Reading], **more: Any) -> dict[str, Any]:
        """Write and return the result."""
        kind = self.kind(readings)
        result = {
            "temperature": chosen.temperature,
            "source": source,
            "diversity": diversity(chosen, kind),
            **more,
            **self._record(readings),
        }
        result["settings"] = self.settings | {"diversity": kind}
        if self.context.world.is_main:
            if len(readings) > 1:
                from polaris.observe.charts import png, temperature

                write_atomically(self._path.with_suffix(".png"), png(temperature(result)))
            else:
                self._path.with_suffix(".png").unlink(missing_ok=True)
            Result(self._path).write(result)
            self._unfinished.path.unlink(missing_ok=True)
        return result

    def _record(self, readings: Iterable[Reading]) -> dict[str, Any]:
        return {"settings": self.settings, "version": self.context.engine.version, "readings": [asdict(reading) for reading in readings]}


def diversity(reading: Reading, kind: Kind) -> float:
    """The share of distinct 4-grams of that kind. Raises `Refused` where no response has four words."""
    share = reading.words if kind == "words" else reading.tokens
    if share <= 0 and kind != "tokens":
        raise Refused('no response of the temperature probe has four words; set probe.diversity = "tokens"')
    return share


def prompts_of(config: RunConfig, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """The first `probe.prompts` of the prompts; all if it is not set."""
    most = config.probe.prompts
    return prompts if most == "all" else prompts[:most]


def probe_temperature(probe: TemperatureProbe) -> dict[str, Any]:
    """Readings at all of `probe.temperatures`, the zones, and the initial temperature.

    Raises:
        NoAccuracy: the accuracy cannot be told from 0 at any temperature.
        GenerationInterrupted: a stop was requested.
    """
    if (done := probe.result("probe")) is not None:
        return done
    config = probe.context.config.probe
    if len(probe.prompts) <= 1:
        raise Refused("the set has one prompt, which says nothing of others to the temperature probe; give 60 or more (eval.path)")
    readings = [probe.at(temperature) for temperature in config.temperatures]
    kind = probe.kind(readings)
    shares = np.array([diversity(reading, kind) for reading in readings])
    zones = find_zones(np.array(config.temperatures), _accuracy(readings), shares, tolerance=config.tolerance)
    chosen = next(reading for reading in readings if reading.temperature == zones.initial)
    return probe.finish("probe", chosen, readings, zones=asdict(zones))


def retune(probe: TemperatureProbe, current: float, target: float) -> dict[str, Any]:
    """The lowest temperature from `current` up with the diversity `target`, on a grid of 0.05, below the collapse of accuracy.

    Collapse is measured against the best accuracy from `current` up, so only the temperatures of the rise are drawn. If the accuracy at
    `current` cannot be told from 0, a collapse could not be seen, and the temperature stays.
    Raises `GenerationInterrupted`.
    """
    if (done := probe.result("retune", target=target)) is not None:
        return done
    config = probe.context.config
    chosen = probe.at(current)
    readings, stopped = [chosen], "diversity restored"
    if not above_zero(np.array(chosen.per_prompt)):
        return probe.finish("retune", chosen, readings, target=target, stopped="accuracy cannot be told from 0")
    while diversity(chosen, probe.kind(readings)) < target:
        hotter = next_temperature(chosen.temperature)
        if hotter > max(config.probe.temperatures):
            stopped = "probe.temperatures end"
            break
        readings.append(probe.at(hotter))
        collapsed = first_collapsed(_accuracy(readings))
        if collapsed is not None:
            chosen, stopped = readings[collapsed - 1], "accuracy collapses"
            break
        chosen = readings[-1]
    return probe.finish("retune", chosen, readings, target=target, stopped=stopped)


def read_once(probe: TemperatureProbe, temperature: float) -> dict[str, Any]:
    """The diversity at a given temperature, which `retune` of the next stage restores. Raises `GenerationInterrupted`."""
    if (done := probe.result("fixed", temperature=temperature)) is not None:
        return done
    reading = probe.at(temperature)
    return probe.finish("fixed", reading, [reading])


def next_temperature(temperature: float) -> float:
    """The next hotter temperature on the grid of `STEP`."""
    return round((math.floor(temperature / STEP + 1e-6) + 1) * STEP, 2)


def measure(context: SamplingContext, prompts: Sequence[Prompt], sampling: Sampling) -> Reading:
    """Draw, grade and count; the same reading on every rank. Raises `GenerationInterrupted`, `GradingFailed` and `NoAnswers`."""
    draw = Draw(prompts=prompts, samples=context.config.probe.samples_per_prompt, sampling=sampling, stream="probe", step=0)
    with context.console.phase(f"temperature {sampling.temperature:g}", in_step=False):
        groups = draw_groups(context, draw)
        stop_if_grading_fails(groups, context.config.folder)
        if context.engine.version == 0 and sampling.temperature <= 1:  # hotter text may lose its form
            stop_without_answers(context, groups, f"temperature {sampling.temperature:g}", sampling.max_tokens)
        # Counting takes memory: one rank does it.
        return context.world.gather([count(groups, sampling.temperature)] if context.world.is_main else [])[0]


def count(groups: Sequence[Group], temperature: float) -> Reading:
    """The reading of the groups of all prompts."""
    per_prompt = np.array([np.mean([float(scored.verdict.kind == "correct") for scored in group.rollouts]) for group in groups])
    everything = [scored for group in groups for scored in group.rollouts]
    facts = response_facts(everything, "response")
    texts, tokens = [scored.text for scored in everything], [scored.rollout.tokens for scored in everything]
    low, high = wilson_interval(per_prompt)
    return Reading(
        temperature=temperature,
        accuracy=float(per_prompt.mean()),
        accuracy_low=low,
        accuracy_high=high,
        words=distinct_words(texts),
        tokens=distinct_tokens(tokens),
        length_mean=facts["response/length_mean"],
        clip_ratio=facts["response/clip_ratio"],
        per_prompt=per_prompt.tolist(),
        word_grams=word_grams_per_token_gram(texts, tokens),
    )


def _readings(content: Mapping[str, Any]) -> dict[float, Reading]:
    """The readings of a result, by their temperatures."""
    return {values["temperature"]: Reading(**values) for values in content["readings"]}


def _accuracy(readings: Sequence[Reading]) -> np.ndarray:
    return np.array([reading.per_prompt for reading in readings])
