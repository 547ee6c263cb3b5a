"""Where the run came from, what was changed on its way, and every setting."""

from __future__ import annotations

from polaris.observe.markup import folded, safe, section, table
from polaris.observe.run_files import Result, RunFiles


def configuration(run: RunFiles) -> str:
    if run.config is None:
        return ""
    rows = [(safe(name), safe(value)) for name, value in flat(run.config)]
    settings = folded("Every setting", f'<div class="settings">{table(("setting", "value"), rows)}</div>')
    return section("Configuration", _origin(run) + _changes(run) + settings)


def _origin(run: RunFiles) -> str:
    if run.origin is None:
        return ""
    return f"<p>Began with {safe(run.origin['run'])}, step {safe(run.origin['step'])} ({safe(run.origin['part'])}).</p>"


def _changes(run: RunFiles) -> str:
    """One row per start of the run that changed something; what alters results stands apart."""
    if not run.history:
        return ""
    rows = [
        (safe(f"after step {entry['step']}"), safe(entry["date"]), safe("; ".join(entry["changes"])), safe("; ".join(entry["free"])))
        for entry in run.history
    ]
    return table(("changed", "date", "alters results", "does not"), rows)


def flat(config: Result, prefix: str = "") -> list[tuple[str, object]]:
    """(`section.key`, value) of a nested configuration."""
    pairs: list[tuple[str, object]] = []
    for key, value in config.items():
        pairs += flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + str(key), value)]
    return pairs
