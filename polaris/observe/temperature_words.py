"""A result of the temperature probe in words: what its zones mean, why it chose this temperature, and what it could not tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polaris.algorithm.zones import COLLAPSE_LOSS, MOST_DOUBLINGS, SURE, Zones, may_lose

MEANING = {
    "too cool": "accuracy is lower than at its best, which is hotter",
    "robust generation": "accuracy is as at its best",
    "controlled exploration": "responses are more diverse, and some accuracy is lost",
    "performance collapse": f"more than {COLLAPSE_LOSS:.0%} of the best accuracy is lost",
}
_ENDS = {
    "diversity restored": "responses there are as diverse",
    "accuracy collapses": "at the next one accuracy collapses",
    "probe.temperatures end": "probe.temperatures end there",
    "accuracy cannot be told from 0": "nothing is solved, and a collapse could not be seen",
}
KEPT = "kept: the probability that accuracy is as good as the choice asks for, given the whole curve"


def share(value: float) -> str:
    """A share of distinct 4-grams, as a column has it; "-" where no response is long enough to have one."""
    return f"{value:.3f}" if value else "-"


def reason(result: Mapping[str, Any]) -> str:
    """Why the temperature of a result was taken."""
    at = f"{result['temperature']:g}"
    if result["source"] == "fixed":
        return f"{at} is configured, and was measured so that the next stage can restore its diversity"
    if result["source"] == "retune":
        end = _ENDS.get(result["stopped"], result["stopped"])
        start = result["readings"][0]["temperature"]
        way = "stays" if start == result["temperature"] else f"was found going up from {start:g}"
        return f"{at} {way}, to restore the diversity of {result['target']:.3f} with which the stage before began: {end}"
    zones = Zones(**result["zones"])
    chances = _chances(result, zones)
    within = _within(result)
    if not chances or chances[zones.initial] < SURE:
        return f"{at} is the temperature that most probably stays {within}"
    hotter = [temperature for temperature in chances if temperature > zones.initial]
    why_not = f"; {hotter[0]:g} stays so with {percent(chances[hotter[0]])}" if hotter else ", and the hottest of the grid"
    return f"{at} is the most diverse temperature that surely ({SURE:.0%}) stays {within}{why_not}"


def doubts(result: Mapping[str, Any]) -> Iterator[str]:
    """What the probe could not tell, and what was not drawn; nothing where every temperature is decided."""
    if "zones" not in result:
        return
    zones = Zones(**result["zones"])
    chances, prompts, within = _chances(result, zones), result["settings"]["prompts"], _within(result)
    chosen = chances.get(zones.initial, 1.0)
    if chosen < SURE:
        best = f"{zones.initial:g} is chosen as the most probable one ({percent(chosen)})"
        yield f"no temperature is sure ({SURE:.0%}) to stay {within}; {best}"
    unclear = [f"{temperature:g}" for temperature, chance in chances.items() if 1 - SURE < chance < SURE]
    if unclear:
        subject = f"temperature {unclear[0]} stays" if len(unclear) == 1 else f"temperatures {_listed(unclear)} stay"
        needed = zones.prompts_to_tell
        remedy = (
            f"about {needed} could, if they have the same accuracies" if needed else f"{2**MOST_DOUBLINGS} times as many could not either"
        )
        yield f"{prompts} prompts cannot tell whether {subject} {within}; {remedy} (probe.prompts)"
    hottest = max(values["temperature"] for values in result["readings"])
    undrawn = [f"{temperature:g}" for temperature in result["settings"].get("temperatures", ()) if temperature > hottest]
    if undrawn:
        yield f"nothing was drawn at {_listed(undrawn)}: at {hottest:g} accuracy has collapsed already"


def percent(chance: float) -> str:
    """Rounded down: what is not sure does not look so."""
    return f"{math.floor(100 * chance + 1e-9)}%"


def _chances(result: Mapping[str, Any], zones: Zones) -> dict[float, float]:
    """The probability of each temperature to keep the accuracy; empty in results of older versions."""
    return dict(zip((values["temperature"] for values in result["readings"]), zones.kept, strict=False))


def _within(result: Mapping[str, Any]) -> str:
    return f"within {may_lose(result['settings']['tolerance']):.0%} of the best accuracy"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
