"""The temperature probe: accuracy and diversity of the engine's weights at one temperature after another.

`probe_temperature` goes through the whole grid and finds the zones; `retune` goes up from the present temperature until the
diversity that training has taken away is back. Both draw the same seeds at all temperatures and keep each reading as soon as it
is made, so that a killed probe repeats only the unfinished temperature; the result of an earlier call is returned as it is. A
reading does not depend on how the temperature is chosen from it: where only that changes, what is read stays.
Each response is sampled from softmax(logits / temperature), as in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polaris.algorithm.diversity import distinct_tokens, distinct_words
from polaris.algorithm.intervals import bootstrap_interval
from polaris.algorithm.zones import Zones, above_zero, find_zones, first_collapsed
from polaris.data.prompt import Prompt
from polaris.errors import Refused
from polaris.observe.files import write_atomically
from polaris.observe.zones_plot import png
from polaris.recipe.results import changed, check_settings, digest, model_settings, read_result, write_result
from polaris.rollout.types import Sampling
from polaris.trainer.breaker import stop_if_grading_fails
from polaris.trainer.collect import Draw, Graded, draw_groups
from polaris.trainer.record import response_facts
from polaris.trainer.rooms import EngineRooms

STEP = 0.05
"""Grid of `retune`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the samples at one temperature say: avg@n with its 95 % interval over prompts, and shares of distinct 4-grams."""

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


class Probe:
    """Readings over `prompts_of` the prompts, responses of at most `max_tokens`; `path` is where the result will be.

    Where training with the result has `begun`, a finished result stays as it was decided.
    """

    def __init__(self, rooms: EngineRooms, prompts: Sequence[Prompt], max_tokens: int, path: Path, *, begun: bool = True) -> None:
        config = rooms.config
        self.rooms = rooms
        self.max_tokens = max_tokens
        self.prompts = prompts_of(rooms, prompts)
        self._measurement = {
            **model_settings(config),
            "prompts": len(self.prompts),
            "digest": digest(self.prompts),
            "samples_per_prompt": config.probe.samples_per_prompt,
            "max_response_tokens": max_tokens,
            "require_thinking": config.reward.require_thinking,
            "seed": config.seed,
        }
        self.settings = self._measurement | {
            "temperatures": list(config.probe.temperatures),
            "diversity": config.probe.diversity,
            "tolerance": config.probe.tolerance,
        }
        self._path = path
        self._unfinished = path.with_name(f"unfinished-{path.name}")
        self._begun = begun
        self._readings: dict[float, Reading] = {}
        self._take(read_result(self._unfinished, "settings", "readings"))

    def result(self, source: str, **wanted: float) -> dict[str, Any] | None:
        """The finished result, if it is there and was decided in this way.

        Before training with it has begun, one that was decided otherwise is none: what it read of the same weights counts as kept.

        Raises:
            ValueError: it is of another model, or other prompts or settings, or came about in another way.
        """
        result = read_result(self._path, "settings", "temperature", "readings")
        if result is None:
            return None
        way = {"source": source, **wanted}
        decided = not changed(result["settings"], self.settings) and not changed(result, way)
        if not decided and not self._begun and self._take(result):
            return None
        check_settings(self._path, result["settings"], self.settings)
        check_settings(self._path, result, way)
        return result

    def at(self, temperature: float) -> Reading:
        """The reading at a temperature, drawn unless it is kept. Raises `GenerationInterrupted`."""
        if temperature in self._readings:
            return self._readings[temperature]
        reading = measure(self.rooms, self.prompts, Sampling(temperature=temperature, max_tokens=self.max_tokens))
        self._readings[temperature] = reading
        if self.rooms.world.is_main:
            write_result(self._unfinished, self._record(self._readings.values()))
        self.rooms.console.note(
            f"temperature {temperature:g}: accuracy {100 * reading.accuracy:.1f}%, diversity {self.diversity(reading):.3f}"
        )
        return reading

    def diversity(self, reading: Reading) -> float:
        """The kind of diversity that `probe.diversity` names.

        Raises:
            ValueError: no response has four words.
        """
        if self.rooms.config.probe.diversity == "tokens":
            return reading.tokens
        if not reading.words:
            raise Refused('no response of the temperature probe has four words; set probe.diversity = "tokens"')
        return reading.words

    def finish(self, source: str, chosen: Reading, readings: Sequence[Reading], **more: Any) -> dict[str, Any]:
        """Write and return the result."""
        result = {
            "temperature": chosen.temperature,
            "source": source,
            "diversity": self.diversity(chosen),
            **more,
            **self._record(readings),
        }
        if self.rooms.world.is_main:
            if len(readings) > 1:
                write_atomically(self._path.with_suffix(".png"), png(result))
            else:
                self._path.with_suffix(".png").unlink(missing_ok=True)
            write_result(self._path, result)
            self._unfinished.unlink(missing_ok=True)
        return result

    def _take(self, record: Mapping[str, Any] | None) -> bool:
        """Keep the readings of a record of the same weights, measured in the same way; whether it is one."""
        if record is None or record.get("version") != self.rooms.engine.version or changed(record["settings"], self._measurement):
            return False
        self._readings |= {values["temperature"]: Reading(**values) for values in record["readings"]}
        return True

    def _record(self, readings: Iterable[Reading]) -> dict[str, Any]:
        return {"settings": self.settings, "version": self.rooms.engine.version, "readings": [asdict(reading) for reading in readings]}


def prompts_of(rooms: EngineRooms, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """The first `probe.prompts` of them."""
    return prompts[: rooms.config.probe.prompts or None]


def probe_temperature(probe: Probe) -> dict[str, Any]:
    """Readings at all of `probe.temperatures`, the zones, and the initial temperature.

    Raises:
        NoAccuracy: the accuracy cannot be told from 0 at any temperature.
        GenerationInterrupted: a stop was requested.
    """
    if (done := probe.result("probe")) is not None:
        return done
    config = probe.rooms.config
    readings = [probe.at(temperature) for temperature in config.probe.temperatures]
    diversity = np.array([probe.diversity(reading) for reading in readings])
    zones = find_zones(
        np.array(config.probe.temperatures), _accuracy(readings), diversity, tolerance=config.probe.tolerance, seed=config.seed
    )
    chosen = next(reading for reading in readings if reading.temperature == zones.initial)
    return probe.finish("probe", chosen, readings, zones=asdict(zones))


def retune(probe: Probe, current: float, target: float) -> dict[str, Any]:
    """The coolest temperature from `current` up that has the diversity `target`, on a grid of 0.05, none where accuracy collapses.

    Collapse is measured against the best accuracy from `current` up, so that no more temperatures are drawn than the rise needs.
    Where the accuracy at `current` cannot be told from 0, nor can a collapse, and the temperature stays.
    Raises `GenerationInterrupted`.
    """
    if (done := probe.result("retune", target=target)) is not None:
        return done
    config = probe.rooms.config
    chosen = probe.at(current)
    readings, stopped = [chosen], "diversity restored"
    if not above_zero(np.array(chosen.per_prompt), config.seed):
        return probe.finish("retune", chosen, readings, target=target, stopped="accuracy cannot be told from 0")
    while probe.diversity(chosen) < target:
        hotter = next_temperature(chosen.temperature)
        if hotter > max(config.probe.temperatures):
            stopped = "probe.temperatures end"
            break
        readings.append(probe.at(hotter))
        collapsed = first_collapsed(_accuracy(readings), config.seed)
        if collapsed is not None:
            chosen, stopped = readings[collapsed - 1], "accuracy collapses"
            break
        chosen = readings[-1]
    return probe.finish("retune", chosen, readings, target=target, stopped=stopped)


def read_once(probe: Probe, temperature: float) -> dict[str, Any]:
    """The diversity at a temperature that somebody else chose, for the `retune` after it. Raises `GenerationInterrupted`."""
    if (done := probe.result("fixed", temperature=temperature)) is not None:
        return done
    reading = probe.at(temperature)
    return probe.finish("fixed", reading, [reading])


def next_temperature(temperature: float) -> float:
    """The next hotter temperature on the grid of `STEP`."""
    return round((math.floor(temperature / STEP + 1e-6) + 1) * STEP, 2)


def measure(rooms: EngineRooms, prompts: Sequence[Prompt], sampling: Sampling) -> Reading:
    """Draw, grade and count; the same reading on every rank. Raises `GenerationInterrupted` and `GradingFailed`."""
    draw = Draw(prompts=prompts, samples=rooms.config.probe.samples_per_prompt, sampling=sampling, stream="probe", step=0)
    with rooms.console.phase(f"temperature {sampling.temperature:g}", in_step=False):
        groups = draw_groups(rooms, draw)
        stop_if_grading_fails(groups, prompts, Path(rooms.config.root) / rooms.config.name)
        # Counting takes memory: one rank does it.
        return rooms.world.gather([count(groups, sampling.temperature, rooms.config.seed)] if rooms.world.is_main else [])[0]


def count(groups: Sequence[Sequence[Graded]], temperature: float, seed: int) -> Reading:
    """The reading of graded samples, one group per prompt."""
    per_prompt = np.array([np.mean([graded.verdict.reward for graded in group]) for group in groups])
    everything = [graded for group in groups for graded in group]
    facts = response_facts(everything, "response")
    low, high = bootstrap_interval(per_prompt, seed)
    return Reading(
        temperature=temperature,
        accuracy=float(per_prompt.mean()),
        accuracy_low=low,
        accuracy_high=high,
        words=distinct_words(graded.text for graded in everything),
        tokens=distinct_tokens([graded.rollout.tokens for graded in everything]),
        length_mean=facts["response/length_mean"],
        clip_ratio=facts["response/clip_ratio"],
        per_prompt=per_prompt.tolist(),
    )


def table(result: Mapping[str, Any]) -> list[str]:
    """The readings of a result as lines, with their zones where it has them."""
    zones = Zones(**result["zones"]) if "zones" in result else None
    lines = ["temperature  accuracy  95% interval  distinct words  tokens  length  cut off  zone"]
    for values in result["readings"]:
        zone = zones.of(values["temperature"]) if zones else ""
        chosen = "  <- chosen" if values["temperature"] == result["temperature"] else ""
        lines.append(f"{_line(values)}  {zone}{chosen}".rstrip())
    return lines


def _line(values: Mapping[str, Any]) -> str:
    accuracy, low, high = (100 * values[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    shares = f"{values['words']:>14.3f}  {values['tokens']:>6.3f}"
    lengths = f"{values['length_mean']:>6.0f}  {100 * values['clip_ratio']:>6.1f}%"
    return f"{values['temperature']:>11g}  {accuracy:>7.1f}%  {f'{low:.1f}-{high:.1f}':>12}  {shares}  {lengths}"


def _accuracy(readings: Sequence[Reading]) -> np.ndarray:
    return np.array([reading.per_prompt for reading in readings])
