"""What the console has warned of, or would have."""

from __future__ import annotations

from polaris.observe.alarms import warnings
from polaris.observe.markup import safe, section, table
from polaris.observe.run_files import RunFiles


def alarms(run: RunFiles) -> str:
    """One row for each; nothing for a run without any."""
    rows = [(str(said.step), safe(said.text), safe(said.remedy)) for said in warnings(run.records)]
    return section("Alarms", table(("step", "what", "what to try"), rows)) if rows else ""
