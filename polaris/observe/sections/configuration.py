"""Every setting of the run."""

from __future__ import annotations

from polaris.observe.markup import folded, safe, section, table
from polaris.observe.run_files import Result, RunFiles


def configuration(run: RunFiles) -> str:
    if run.config is None:
        return ""
    rows = [(safe(name), safe(value)) for name, value in flat(run.config)]
    return section("Configuration", folded("Every setting", f'<div class="settings">{table(("setting", "value"), rows)}</div>'))


def flat(config: Result, prefix: str = "") -> list[tuple[str, object]]:
    """(`room.field`, value) of a nested configuration."""
    pairs: list[tuple[str, object]] = []
    for key, value in config.items():
        pairs += flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + str(key), value)]
    return pairs
