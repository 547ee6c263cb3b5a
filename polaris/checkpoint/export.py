"""From a run's checkpoint to a Hugging Face folder that transformers and vLLM load."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.runs import beside
from polaris.checkpoint.shards import load_adapters, write_shards
from polaris.config.job import JobConfig
from polaris.config.model import RopeConfig
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.model.adapters import add_adapters, named_adapters, write_adapter
from polaris.model.load import build_model, locate_model, read_config
from polaris.model.rope import resolve_rope

_COPIED = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*", "generation_config.json")


def export(run: Path, output: Path | None, step: int | None, *, adapter: bool = False) -> Path:
    """Write safetensors, config and tokenizer of a run's newest (or given) checkpoint; needs no process group and no GPU.

    The folder appears in one move, so an existing export is complete; without `output`, it is returned as it is.

    Weights are stored in the run's compute dtype, as the rollout engine served them, with adapters (model.lora) merged; config.json has the
    run's rope. The chat template is the one that the run was trained with. With `adapter`, the folder holds the adapters alone, in float32,
    as peft and vLLM load them beside the base model.

    Raises:
        ValueError: no such run or checkpoint, the output folder is not empty, or the run has no adapters that could be written alone.
    """
    if not (run / "config.json").is_file():
        raise Refused(f"{run} is not a run folder; {beside(run)}")
    steps = layout.complete_steps(run / "checkpoints")
    if not steps or (step is not None and step not in steps):
        raise Refused(f"{run} has no complete checkpoint; train it first" if not steps else f"{run} has checkpoints of steps {steps} only")
    step = steps[-1] if step is None else step
    record = RunFolder(run).record()
    assert record is not None
    if adapter:
        _check_adapter(run, record.config)
    own = run / ("adapter" if adapter else "export") / f"step-{step:06d}"
    if output is None and (own / ("adapter_config.json" if adapter else "config.json")).is_file():
        return own.resolve()
    output = _empty(output or own)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    write = _write_adapter if adapter else _write_model
    write(temporary, record.config, layout.step_folder(run / "checkpoints", step))
    temporary.replace(output)  # replaces an empty folder
    return output


def base_folder(config: JobConfig) -> Path:
    """The folder of the model that a run has begun with."""
    return locate_model(replace(config.model, path=resolve(config.model.path))).folder


def _check_adapter(run: Path, config: JobConfig) -> None:
    if not config.model.lora.rank:
        raise Refused(f"{run} has trained all weights, and no adapter (model.lora); export the model: leave --adapter out")
    if config.rope != RopeConfig():
        raise Refused(f"{run} has a [rope] of its own, which an adapter's folder cannot hold; export the merged model: leave --adapter out")


def _empty(output: Path) -> Path:
    output = output.resolve()
    if output.exists() and not output.is_dir():
        raise Refused(f"{output} is not a folder; give another with --output")
    if output.is_dir() and any(output.iterdir()):
        raise Refused(f"{output} is not empty; give another folder with --output")
    return output


def _adapted(base: Path, config: JobConfig, checkpoint: Path) -> PreTrainedModel:
    """The model without weights, but with the adapters of a checkpoint if it has some."""
    model = build_model(base, config.rope)
    if config.model.lora.rank:
        add_adapters(model, config.model.lora, getattr(torch, config.model.dtype))
        load_adapters(model, checkpoint)
    return model


def _write_model(folder: Path, config: JobConfig, checkpoint: Path) -> None:
    base, dtype = base_folder(config), config.model.dtype
    model = _adapted(base, config, checkpoint)
    write_shards(folder, model, base, checkpoint, getattr(torch, dtype))
    written = read_config(base, config.rope)  # with the checkpoint's dropout, which training sets to 0
    rope = resolve_rope(base, config.rope)
    if rope.max_positions > rope.original_positions:  # else YaRN on the export would begin at max_positions
        written.rope_parameters["original_max_position_embeddings"] = rope.original_positions
    written.architectures, written.dtype = [type(model).__name__], dtype
    written.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    for pattern in _COPIED:
        for path in base.glob(pattern):
            shutil.copy(path, folder / path.name)
    if config.model.chat_template is not None:
        _replace_template(folder, config.model.chat_template)


def _write_adapter(folder: Path, config: JobConfig, checkpoint: Path) -> None:
    base = base_folder(config)
    write_adapter(folder, named_adapters(_adapted(base, config, checkpoint)), config.model.lora, str(base))


def _replace_template(folder: Path, template: str) -> None:
    """Let the tokenizer in the folder have this chat template, and no other."""
    for path in folder.glob("chat_template*"):
        path.unlink()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and "chat_template" in (content := json.loads(settings.read_text(encoding="utf-8"))):
        del content["chat_template"]
        settings.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
