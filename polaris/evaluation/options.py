"""The options of `polaris eval` and `torchrun -m polaris.evaluate`, as `EvalSettings`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.config.data import given_columns
from polaris.config.model import ModelConfig
from polaris.config.own_code import Option
from polaris.config.reward import RewardConfig
from polaris.config.rollout import RolloutConfig
from polaris.data.named_sets import NAMED_SETS
from polaris.errors import Refused, RunFailed
from polaris.evaluation.settings import PAPER, PAPER_BUCKETS, PAPER_TEMPERATURE, PLAIN, EvalSettings, ServerSettings, buckets_for

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTION = """\
Draw samples of every problem of the sets, grade them by our rules and by the recipe's published grader, and write result.json and
result.md: avg@n, pass@k and maj@k with intervals, accuracy and clip ratio by response length, and all that is needed to repeat it.
Every finished sample is on disk at once; the same command resumes a stopped evaluation. On several GPUs:
torchrun --nproc-per-node N -m polaris.evaluate with the same options. Defaults are the paper's. Named sets, with the paper's samples
per problem: aime24 and aime25 (32), amc23 (8), minerva and olympiad (4); others: aime26 and hmmt25 (32), beyondaime and gpqa-diamond
(8), math500 (4). `polaris eval compare A B` tells whether two results differ."""


_FIELDS = {
    "final.suite": "--suite",
    "final.samples_per_prompt": "--samples",
    "final.temperature": "--temperature",
    "final.top_k": "--top-k",
    "final.max_response_tokens": "--max-tokens",
    "final.prompt_suffix": "--prompt-suffix",
    "final.rope_factors": "--yarn",
    "final.original_positions": "--original-positions",
    "final.attention_factor": "--attention-factor",
    "final.max_positions": "--max-positions",
    "final.seed": "--seed",
    "rope.factor": "--yarn",
    "rope.original_positions": "--original-positions",
    "rope.attention_factor": "--attention-factor",
    "rope.max_positions": "--max-positions",
    "model.path": "--model",
    "model.revision": "--revision",
    "model.dtype": "--dtype",
    "data.chat_template_options": "--chat-option",
    "final.columns": "--column",
    "final.answer": "--answer",
    "final.options": "--set-option",
    "rollout.engine": "--engine",
    "rollout.tensor_parallel": "--tensor-parallel",
    "rollout.max_concurrent": "--concurrent",
    "rollout.gpu_memory_fraction": "--gpu-memory",
    "rollout.kv_cache_mib": "--kv-cache-mib",
    "reward.answer": "--answer-form",
    "reward.workers": "--workers",
    "reward.timeout_s": "--timeout",
    "reward.require_thinking": "--require-thinking",
    "server.concurrency": "--concurrent",
}
"""Fields that messages name, and the options that set them here."""


@contextmanager
def named_as_options() -> Iterator[None]:
    """In refusals and failures that leave the block, replace fields of a configuration by options."""
    try:
        yield
    except (Refused, RunFailed) as error:
        named = re.sub(r"\b[a-z]+\.[a-z_]+", lambda field: _FIELDS.get(field[0], field[0]), str(error))
        raise type(error)(named) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of both programs."""
    parser.add_argument("--model", required=True, metavar="M", help="folder, hub name, run, embedded:model; the name at a --server")
    parser.add_argument("--suite", required=True, type=_words, metavar="SETS", help="names, files, folders or hub datasets; commas between")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/eval-<model>")
    parser.add_argument("--data-folder", type=_given, metavar="FOLDER", help="look here for <name>.parquet, .json, .jsonl before the hub")
    parser.add_argument("--split", default="test", help="split of other hub datasets (default: test)")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="as data.columns, such as prompt=question")
    parser.add_argument("--answer", default="whole", help='as data.answer, such as "####" (default: whole)')
    parser.add_argument(
        "--set-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for reasoning_gym:TASK and module:function, such as size=200",
    )
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="SET", help="training sets: report which problems are also in them"
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("-n", "--samples", type=int, help="per problem (default: the paper's for each named set)")
    sampling.add_argument("--temperature", type=float, default=PAPER_TEMPERATURE, help=f"default: {PAPER_TEMPERATURE}")
    sampling.add_argument("--top-k", type=int, default=PAPER.top_k, help=f"-1 for all tokens (default: {PAPER.top_k})")
    sampling.add_argument("--max-tokens", type=int, default=PAPER.max_response_tokens, help=f"default: {PAPER.max_response_tokens}")
    sampling.add_argument("--prompt-suffix", default=PAPER.prompt_suffix, help="appended to problems that do not end with it")
    sampling.add_argument("--system-prompt", default="", help="system message of chats that have none")
    sampling.add_argument("--chat-option", action="append", default=[], metavar="NAME=VALUE", help="for the chat template")
    sampling.add_argument("--seed", type=int, default=0, help="of every sample (default: 0)")
    sampling.add_argument("--yarn", type=_numbers(float), default=(1.0,), metavar="FACTORS", help="such as 1,1.5: without and with YaRN")
    sampling.add_argument("--original-positions", type=int, help="positions that YaRN extends (default: the checkpoint's)")
    sampling.add_argument(
        "--max-positions", type=int, metavar="TOKENS", help="longest sequence, which may extrapolate (default: the checkpoint's)"
    )
    sampling.add_argument(
        "--attention-factor", type=float, metavar="A", help="YaRN's factor on cosines and sines (default: 0.1 ln(factor) + 1)"
    )
    grading = parser.add_argument_group("grading")
    grading.add_argument(
        "--require-thinking",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="an answer counts only after </think> (default: if the chat template or most responses open thinking)",
    )
    grading.add_argument(
        "--answer-form",
        default=PLAIN.answer,
        metavar="FORM",
        help='where a response has its answer, as reward.answer, such as whole or "<answer>"; not of multiple choice (default: boxed)',
    )
    grading.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="longest time for one answer (default: 5)")
    grading.add_argument("--workers", type=int, help="processes of each grader (default: one per two cores)")
    edges = f"{','.join(map(str, PAPER_BUCKETS))}; quartiles if --max-tokens is not above the last"
    grading.add_argument("--buckets", type=_edges, metavar="EDGES", help=f"tokens, or quartiles (default: {edges})")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--engine", choices=("auto", "vllm", "transformers"), default="auto", help="auto: vLLM if it is installed")
    engine.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16", help="of the engine (default: bfloat16)")
    engine.add_argument("--revision", help="of a hub model")
    engine.add_argument("--tensor-parallel", type=int, default=1, metavar="RANKS", help="ranks that share one engine")
    engine.add_argument("--concurrent", type=int, default=256, help="sequences at a time per engine, or requests per rank at a server")
    engine.add_argument("--gpu-memory", type=float, default=0.9, metavar="SHARE", help="of vLLM (default: 0.9)")
    engine.add_argument("--kv-cache-mib", type=int, default=1024, help="of vLLM on CPU (default: 1024)")
    engine.add_argument("--server", metavar="URL", help="OpenAI-compatible server that generates instead, such as http://host:8000/v1")
    engine.add_argument(
        "--server-patience", type=float, default=600.0, metavar="SECONDS", help="give up after so long without any answer (default: 600)"
    )


def settings_of(options: argparse.Namespace) -> EvalSettings:
    """The options as settings. Raises `ValueError` for a value out of bounds or without effect."""
    with named_as_options():
        return _settings(options)


def _settings(options: argparse.Namespace) -> EvalSettings:
    yarn = any(factor > 1 for factor in options.yarn)
    if not yarn and options.original_positions is not None:
        raise Refused("--original-positions needs YaRN; give a factor above 1, such as --yarn 1,1.5")
    if not yarn and options.attention_factor is not None:
        raise Refused("--attention-factor needs YaRN; give a factor above 1, such as --yarn 1,1.5")
    if options.answer_form != PLAIN.answer and all(name in NAMED_SETS and NAMED_SETS[name].choices for name in options.suite):
        raise Refused("--answer-form has no effect: sets of multiple choice are graded by the letter that a response chooses; remove it")
    return EvalSettings(
        suite=options.suite,
        data_folder=options.data_folder,
        split=options.split,
        samples_per_prompt=options.samples,
        temperature=options.temperature,
        top_k=options.top_k,
        max_response_tokens=options.max_tokens,
        prompt_suffix=options.prompt_suffix,
        rope_factors=options.yarn,
        original_positions=options.original_positions,
        attention_factor=options.attention_factor,
        max_positions=options.max_positions,
        chat_template_options=dict(map(_chat_option, options.chat_option)),
        system_prompt=options.system_prompt,
        columns=given_columns("final", options.column),
        answer=options.answer,
        options=dict(map(_argument, options.set_option)),
        buckets=buckets_for(options.max_tokens) if options.buckets is None else options.buckets,
        seed=options.seed,
        against=tuple(options.against),
        model=ModelConfig(path=options.model, revision=options.revision, dtype=options.dtype),
        rollout=RolloutConfig(
            engine=options.engine,
            tensor_parallel=options.tensor_parallel,
            max_concurrent=options.concurrent,
            gpu_memory_fraction=options.gpu_memory,
            kv_cache_mib=options.kv_cache_mib,
        ),
        reward=RewardConfig(
            answer=options.answer_form,
            workers=options.workers,
            timeout_s=options.timeout,
            require_thinking=options.require_thinking,
        ),
        server=_server(options) if options.server else None,
    )


def _server(options: argparse.Namespace) -> ServerSettings:
    return ServerSettings(url=options.server, model=options.model, concurrency=options.concurrent, patience_s=options.server_patience)


def _given(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a folder, or leave the option out")
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    def numbers(text: str) -> tuple[float, ...]:
        try:
            return tuple(map(kind, _words(text)))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} must be numbers separated by commas") from None

    return numbers


def _edges(text: str) -> tuple[float, ...]:
    return () if text == "quartiles" else _numbers(int)(text)


def _chat_option(text: str) -> tuple[str, bool | str]:
    name, value = _pair(text, "--chat-option", "enable_thinking=true")
    return name, {"true": True, "false": False}.get(value.lower(), value)


def _argument(text: str) -> tuple[str, Option]:
    """The value is what it is in JSON, or else text."""
    name, value = _pair(text, "--set-option", "size=200")
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        read = value
    if not isinstance(read, bool | int | float | str | list):
        raise Refused(f"--set-option {text} must have a number, a text, true, false or a list behind the sign")
    return name, read


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Refused(f"{option} {text} must be NAME=VALUE, such as {example}")
    return name, value
