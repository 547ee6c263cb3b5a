"""What a configuration asks of stages, temperature probe, curriculum and process reward, in words; pure functions."""

from __future__ import annotations

from polaris.config.schema import RunConfig


def phases(config: RunConfig, probed: int) -> dict[str, str]:
    """Facts by name, only of what is on; the probe has `probed` prompts to take its own from."""
    facts, curriculum, process = {"stages": _stages(config)}, config.curriculum, config.reward.process
    temperatures = [stage.temperature for stage in config.stages]
    if "probe" in temperatures or temperatures[0] == "track":
        facts["probe"] = _probe(config, probed)
    if curriculum.target:
        first, last = curriculum.target
        facts["curriculum"] = f"prompts with a pass rate near {first:g} more often, at the end near {last:g}"
    if process.most:
        facts["process reward"] = f"a wrong response earns up to {process.most:g} for its intermediate results"
    return facts


def _stages(config: RunConfig) -> str:
    """Each with its steps, temperature and longest response."""
    said = []
    for stage in config.stages:
        temperature, tokens = config.sampling(stage)
        at = f'"{temperature}"' if isinstance(temperature, str) else f"{temperature:g}"
        said.append(f"{stage.steps} steps at temperature {at}, {tokens:,} tokens")
    return "; ".join(said)


def _probe(config: RunConfig, prompts: int) -> str:
    probe = config.probe
    asked = prompts if probe.prompts == "all" else min(prompts, probe.prompts)
    grid = f"{len(probe.temperatures)} temperatures from {probe.temperatures[0]:g} to {probe.temperatures[-1]:g}"
    return f"{grid}, at most {probe.samples_per_prompt} responses to each of {asked} prompts at each"
