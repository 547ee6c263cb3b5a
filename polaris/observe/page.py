"""The report as one HTML page: no network, no server, and nothing that a model wrote can run.

Covered: every value from the run is HTML-escaped text or attribute text, in a `document` that runs no other script. Not covered: what a
rollout says to its reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.observe.document import document
from polaris.observe.run_files import RunFiles
from polaris.observe.sections.alarms import alarms
from polaris.observe.sections.configuration import configuration
from polaris.observe.sections.difficulty import difficulty
from polaris.observe.sections.evaluation import evaluation
from polaris.observe.sections.lengths import lengths
from polaris.observe.sections.overview import overview
from polaris.observe.sections.rollouts import rollouts
from polaris.observe.sections.stages import stages
from polaris.observe.sections.temperature import temperature
from polaris.observe.sections.training import training


def render(run: RunFiles, summary: Mapping[str, Any]) -> str:
    """The whole page; `summary` is that of `polaris.observe.report`. A part of the recipe that has left nothing has no section."""
    parts = (
        overview(run, summary),
        alarms(run),
        evaluation(run),
        stages(run),
        training(run),
        difficulty(run),
        temperature(run),
        lengths(run),
        rollouts(run),
        configuration(run),
    )
    return document(run.name, "".join(parts))
