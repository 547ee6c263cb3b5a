"""The report as one HTML page: no network, no server, and nothing that a model wrote can run.

Covered: every value from the run is HTML-escaped text or attribute text, and the page's Content-Security-Policy admits only
the style sheet and the script whose hashes it names. Not covered: what a rollout says to its reader.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from polaris.observe.assets import SCRIPT, STYLE
from polaris.observe.markup import safe
from polaris.observe.run_files import RunFiles
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
    policy = f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; form-action 'none'"
    parts = (
        overview(run, summary),
        evaluation(run),
        stages(run),
        training(run),
        difficulty(run),
        temperature(run),
        lengths(run),
        rollouts(run),
        configuration(run),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{safe(run.name)} - Polaris</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
