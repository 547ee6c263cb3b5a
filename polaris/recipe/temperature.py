"""The temperature probe: accuracy and diversity of the engine's weights at one temperature after another.

`probe_temperature` reads the grid and finds the zones; a temperature gets more responses as long as they could change the choice
(`next_draw` in `polaris.algorithm.zones`). `retune` raises the present temperature until diversity is what it was before training. Both
use the same prompts and seeds at all temperatures and write what they have drawn at once, so a killed probe repeats only what was
unfinished. The result of an earlier call is returned. If only the rule of choice changes, the readings are kept.
Each response is sampled from softmax(logits / temperature), as in training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polaris.algorithm.track import hotter_ones, most_steps, next_place
from polaris.algorithm.zones import above_zero, find_zones, first_collapsed, next_draw
from polaris.config.schema import RunConfig
from polaris.data.digest import digest
from polaris.errors import Refused
from polaris.files import write_atomically
from polaris.model.identity import model_settings
from polaris.observe.temperature_words import share
from polaris.recipe import temperature_cost
from polaris.recipe.temperature_reading import Reading, measure, together
from polaris.results import Result
from polaris.reward.rewards import identity
from polaris.rollout.types import Sampling
from polaris.sampling.context import SamplingContext
from polaris.types import Prompt

FEWEST_WORD_GRAMS = 0.2
"""Per 4-gram of tokens; with fewer, words say little: short answers, or a script without spaces."""

Kind = Literal["words", "tokens"]
COMPARED = "two responses to a prompt"
"""What diversity is counted over; results of older versions pooled all responses."""


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
        self.max_tokens = max_tokens
        self.prompts = prompts_of(config, prompts)
        measurement = {
            **model_settings(config),
            "prompts": len(self.prompts),
            "digest": digest(self.prompts),
            "compared": COMPARED,
            "max_response_tokens": max_tokens,
            "require_thinking": config.reward.require_thinking,
            **identity(config.reward),
            "seed": config.seed,
        }
        self.settings = measurement | {
            "temperatures": list(config.probe.temperatures),
            "samples_per_prompt": config.probe.samples_per_prompt,
            "diversity": self._kind,
            "tolerance": config.probe.tolerance,
        }
        self._path = path
        self._unfinished = Result(path.with_name(f"unfinished-{path.name}"), measurement | {"version": context.engine.version})
        kept = self._unfinished.read_if_valid("readings")
        self._readings = _readings(kept) if kept else {}
        self._seconds = 0.0

    def result(self, source: str, **wanted: float) -> dict[str, Any] | None:
        """The finished result, if there is one and it was decided in this way.

        Of a result of the same weights that was decided otherwise, only the readings are kept.

        Raises:
            ValueError: it is of another model, or other prompts or settings, or came about in another way.
        """
        content = Result(self._path).read("settings", "temperature", "readings")
        if content is None:
            return None
        mine = not self._unfinished.changes(content)  # measured like this, with these weights
        readings = _readings(content) if mine else {}
        kind = self.kind(readings.values()) if mine or self._kind != "auto" else content["settings"]["diversity"]
        result = Result(self._path, {**self.settings, "diversity": kind, "source": source, **wanted})
        if mine and result.changes(content):
            self._readings = readings | self._readings
            return None
        result.refuse_changes(content)
        return content

    def known(self, temperature: float) -> Reading | None:
        """What has been read at a temperature so far."""
        return self._readings.get(temperature)

    def at(self, temperature: float, samples: int | None = None) -> Reading:
        """The reading of at least `samples` responses to each prompt, by default `probe.samples_per_prompt`; what is missing is drawn.

        Raises `GenerationInterrupted`.
        """
        samples = samples or self.context.config.probe.samples_per_prompt
        before = self._readings.get(temperature)
        first = before.samples if before else 0
        if before and first >= samples:
            return before
        start = time.monotonic()
        sampling = Sampling(temperature=temperature, max_tokens=self.max_tokens)
        drawn = measure(self.context, self.prompts, sampling, first, samples - first)
        self._seconds += time.monotonic() - start
        reading = together(before, drawn) if before else drawn
        diversity(reading, self.kind([reading]))  # refuses before more is drawn
        self._readings[temperature] = reading
        if self.context.world.is_main:
            self._unfinished.write(self._record(self._readings.values()))
        self.context.console.note(
            f"temperature {temperature:g}: accuracy {100 * reading.accuracy:.1f}%, distinct words {share(reading.words)}, "
            f"tokens {share(reading.tokens)}; {reading.responses:,} responses"
        )
        return reading

    def most(self, temperatures: int) -> int:
        """Responses at so many temperatures, if none is left out."""
        return temperatures * len(self.prompts) * self.context.config.probe.samples_per_prompt

    def say_cost(self, temperatures: int) -> None:
        """What readings of so many temperatures may cost, less what is there, before they are drawn."""
        difficulty = Result(self._path.with_name("difficulty.json")).read()
        self.context.console.note(temperature_cost.before(self.most(temperatures), self.max_tokens, self._readings.values(), difficulty))

    def kind(self, readings: Iterable[Reading]) -> Kind:
        """The kind of diversity that is compared; with "auto" the coolest responses decide, which are the most like text."""
        if self._kind != "auto":
            return self._kind
        grams = min(readings, key=lambda reading: reading.temperature).word_grams
        return "words" if grams >= FEWEST_WORD_GRAMS else "tokens"

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
        most = self.most(len(self.settings["temperatures"])) if source == "probe" else 0
        self.context.console.note(temperature_cost.after(most, readings, self._seconds))
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
    probe.say_cost(len(config.temperatures))
    while (wanted := _next(probe)) is not None:
        probe.at(*wanted)
    readings = [reading for reading in map(probe.known, config.temperatures) if reading]
    kind = probe.kind(readings)
    shares = np.array([diversity(reading, kind) for reading in readings])
    temperatures = np.array([reading.temperature for reading in readings])
    accuracy, samples = _accuracy(readings)
    zones = find_zones(temperatures, accuracy, shares, samples, tolerance=config.tolerance)
    chosen = next(reading for reading in readings if reading.temperature == zones.initial)
    return probe.finish("probe", chosen, readings, zones=asdict(zones))


def _next(probe: TemperatureProbe) -> tuple[float, int] | None:
    """The temperature that gets responses next, and how many to each prompt it then has."""
    config = probe.context.config.probe
    readings = [probe.known(temperature) for temperature in config.temperatures]
    nothing = [0.0] * len(probe.prompts)
    accuracy = np.array([reading.per_prompt if reading else nothing for reading in readings])
    samples = np.array([reading.samples if reading else 0 for reading in readings])
    wanted = next_draw(accuracy, samples, config.samples_per_prompt, tolerance=config.tolerance)
    return None if wanted is None else (config.temperatures[wanted[0]], wanted[1])


def retune(probe: TemperatureProbe, current: float, target: float) -> dict[str, Any]:
    """The lowest temperature from `current` up with the diversity `target`, on a grid of 0.05, below the collapse of accuracy.

    Diversity rises with the temperature, so the way up is doubled until the target is met or accuracy collapses, and the last part of it
    halved. Collapse is measured against the best accuracy from `current` up. If the accuracy at `current` cannot be told from 0, a
    collapse could not be seen, and the temperature stays.
    Raises `GenerationInterrupted`.
    """
    if (done := probe.result("retune", target=target)) is not None:
        return done
    grid = [current, *hotter_ones(current, max(probe.context.config.probe.temperatures))]
    probe.say_cost(most_steps(len(grid)))
    read = {0: probe.at(current)}
    if not above_zero(np.array(read[0].per_prompt)):
        return probe.finish("retune", read[0], [read[0]], target=target, stopped="accuracy cannot be told from 0")
    kind = probe.kind(read.values())
    while True:
        places = sorted(read)
        collapsed = first_collapsed(*_accuracy([read[place] for place in places]))
        met = [place for place in places if diversity(read[place], kind) >= target]
        over = min([*met, *(places[collapsed:] if collapsed is not None else [])], default=None)
        under = max((place for place in places if over is None or place < over), default=0)
        wanted = next_place(under, over, len(grid) - 1)
        if wanted is None:
            break
        read[wanted] = probe.at(grid[wanted])
    readings = [read[place] for place in places]
    if over is None:
        return probe.finish("retune", read[under], readings, target=target, stopped="probe.temperatures end")
    if collapsed is not None and over >= places[collapsed]:
        return probe.finish("retune", read[under], readings, target=target, stopped="accuracy collapses")
    return probe.finish("retune", read[over], readings, target=target, stopped="diversity restored")


def read_once(probe: TemperatureProbe, temperature: float) -> dict[str, Any]:
    """The diversity at a given temperature, which `retune` of the next stage restores. Raises `GenerationInterrupted`."""
    if (done := probe.result("fixed", temperature=temperature)) is not None:
        return done
    reading = probe.at(temperature)
    return probe.finish("fixed", reading, [reading])


def _readings(content: Mapping[str, Any]) -> dict[float, Reading]:
    """The readings of a result, by their temperatures."""
    return {values["temperature"]: Reading(**values) for values in content["readings"]}


def _accuracy(readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray]:
    """avg@n [K, P] and n [K]."""
    return np.array([reading.per_prompt for reading in readings]), np.array([reading.samples for reading in readings])
