"""One real step of one tiny model: `python -m benchmarks.models.one NAME ENGINE FOLDER` prints what came of it as one line of JSON."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.models.families import FAMILIES
from benchmarks.models.task import build_tokenizer, write_problems
from benchmarks.models.tiny import tiny_config, tiny_model
from polaris import train
from polaris.model.attention import pack_layout
from polaris.model.load import build_model, load_weights
from polaris.model.policy import Policy

LENGTHS = (5, 1, 30, 17)
CONFIG = Path(__file__).parent / "step.toml"


def main(name: str, engine: str, folder: Path) -> None:
    tokenizer = build_tokenizer()
    model_type, changes = FAMILIES[name]
    model = tiny_model(tiny_config(model_type, vocab_size=len(tokenizer), **changes))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_problems(folder / "problems.jsonl")
    arguments = [str(CONFIG), "--fresh", f"--model.path={folder}/model", f"--data.path={folder}/problems.jsonl", f"--root={folder}"]
    with redirect_stderr(StringIO()) as said, redirect_stdout(sys.stderr):
        status = train.main([*arguments, f"--rollout.engine={engine}"])
        facts = (
            gaps(folder, model)
            if status == 0
            else {"message": said.getvalue().strip().split("\n")[-1].replace(f"{folder}/model", "FOLDER")}
        )
    print(json.dumps({"name": name, "model_type": model_type, "engine": engine, "status": status} | facts))


def gaps(folder: Path, model: PreTrainedModel) -> dict[str, Any]:
    """Whether the step was a real one, and its distances in nats."""
    (record,) = (json.loads(line) for line in (folder / "step" / "metrics.jsonl").read_text().splitlines() if '"policy/loss"' in line)
    return {
        "trained": record["optimizer/skipped"] == record["update/skipped"] == 0 and record["optimizer/grad_norm"] > 0,
        "sync_gap": record["sync/logprob_gap"],
        "sample_gap": record["mismatch/logprob_gap_mean"],
        "packing_gap": packing_gap(folder / "model", model),
    }


@torch.no_grad()
def packing_gap(folder: Path, model: PreTrainedModel) -> float:
    """Largest distance of the packed policy's log-probs, dropout and all, from transformers' of single sequences, in nats."""
    policy = Policy(build_model(folder))
    load_weights(policy.model, folder, torch.device("cpu"))
    policy.train()
    tokens = torch.randint(2, model.config.vocab_size, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    layout = pack_layout(list(LENGTHS), torch.device("cpu"))
    rows = torch.cat([torch.arange(n - 1) + start for n, start in zip(LENGTHS, layout.cu_seqlens.tolist(), strict=False)])
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    packed, _ = policy(tokens, positions, layout, rows, tokens[rows + 1], torch.ones(len(rows)))
    single = [
        model(sequence[None]).logits[0].log_softmax(-1)[:-1].gather(1, sequence[1:, None])[:, 0] for sequence in tokens.split(list(LENGTHS))
    ]
    return float((packed - torch.cat(single)).abs().max())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
