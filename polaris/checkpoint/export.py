"""From a run's checkpoint to a Hugging Face folder that transformers and vLLM load."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from transformers.utils import logging

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import RunFolder
from polaris.checkpoint.runs import beside
from polaris.embedded import resolve
from polaris.errors import Refused
from polaris.model.load import build_model, locate_model, read_config
from polaris.model.rope import resolve_rope

_COPIED = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*", "generation_config.json")


def export(run: Path, output: Path | None, step: int | None) -> Path:
    """Write safetensors, config and tokenizer of a run's newest (or given) checkpoint; needs no process group and no GPU.

    The folder appears in one move, so an existing export is complete; without `output`, it is returned as it is.

    Weights are stored in the run's compute dtype, as the rollout engine served them; config.json has the run's rope. The chat template is
    the one that the run was trained with.

    Raises:
        ValueError: no such run or checkpoint, or the output folder is not empty.
    """
    if not (run / "config.json").is_file():
        raise Refused(f"{run} is not a run folder; {beside(run)}")
    steps = layout.complete_steps(run / "checkpoints")
    if not steps or (step is not None and step not in steps):
        raise Refused(f"{run} has no complete checkpoint; train it first" if not steps else f"{run} has checkpoints of steps {steps} only")
    step = steps[-1] if step is None else step
    own = run / "export" / f"step-{step:06d}"
    if output is None and (own / "config.json").is_file():
        return own.resolve()
    output = (output or own).resolve()
    if output.exists() and not output.is_dir():
        raise Refused(f"{output} is not a folder; give another with --output")
    if output.is_dir() and any(output.iterdir()):
        raise Refused(f"{output} is not empty; give another folder with --output")
    record = RunFolder(run).record()
    assert record is not None
    trained, settings = record.config.model, record.config.rope
    base = locate_model(replace(trained, path=resolve(trained.path))).folder
    model = build_model(base, settings).to_empty(device="cpu")
    model.tie_weights()
    weights = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # no_dist disables it
        dcp.load({"model": weights}, checkpoint_id=layout.step_folder(run / "checkpoints", step), no_dist=True)
    model.config = read_config(base, settings)  # with the checkpoint's dropout, which training sets to 0
    rope = resolve_rope(base, settings)
    if rope.max_positions > rope.original_positions:  # else YaRN on the export would begin at max_positions
        model.config.rope_parameters["original_max_position_embeddings"] = rope.original_positions
    logging.disable_progress_bar()
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    model.to(getattr(torch, trained.dtype)).save_pretrained(temporary)
    for pattern in _COPIED:
        for path in base.glob(pattern):
            shutil.copy(path, temporary / path.name)
    if trained.chat_template is not None:
        _replace_template(temporary, trained.chat_template)
    temporary.replace(output)  # replaces an empty folder
    return output


def _replace_template(folder: Path, template: str) -> None:
    """Let the tokenizer in the folder have this chat template, and no other."""
    for path in folder.glob("chat_template*"):
        path.unlink()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and "chat_template" in (content := json.loads(settings.read_text(encoding="utf-8"))):
        del content["chat_template"]
        settings.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
