"""What a vLLM server must be like so that its tokens are those of our own engine, and how to start one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import torch
from packaging.version import InvalidVersion, Version

from polaris.errors import Refused
from polaris.model.folder import transformers_config
from polaris.model.rope import Rope
from polaris.rollout.checkpoint import expected_weights
from polaris.rollout.server_client import Reply, ServerClient
from polaris.rollout.types import ModelFacts
from polaris.rollout.vllm_versions import BEYOND, SERVERS, WEIGHT_BACKEND

_WHOLE_PROMPTS = "--no-enable-chunked-prefill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that fits: its `workers`, each a member of a bridge, and the `most` sequences that it decodes together."""

    workers: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The server that a run needs."""

    model_path: str
    dtype: str
    max_model_len: int
    most: int
    rope: Rope

    def remedy(self, url: str, cuda: bool | None = None) -> str:
        """How to start it, in a sentence; on a device like ours where it is not known."""
        command = self.command(url, torch.cuda.is_available() if cuda is None else cuda)
        return f"Where Polaris is installed, this starts one that fits: {command}"

    def command(self, url: str, cuda: bool) -> str:
        """How to start it, to be found at `url`."""
        options = {
            "host": "0.0.0.0",
            "port": urlsplit(url).port or (443 if url.startswith("https") else 80),
            "model": self.model_path,
            "dtype": self.dtype,
            "max-model-len": self.max_model_len,
            "max-num-seqs": self.most,
            "logprobs-mode": "processed_logprobs",
            "weight-transfer-config": json.dumps({"backend": WEIGHT_BACKEND}),
        }
        own = transformers_config(self.model_path).to_dict()
        head = {"head_dtype": "float32"} if cuda and self.dtype != "float32" else {}
        if overrides := {name: value for name, value in (self.rope.overrides | head).items() if own.get(name) != value}:
            options["hf-overrides"] = json.dumps(overrides)
        exact = "TRITON_F32_DEFAULT=ieee " if cuda and self.dtype == "float32" else ""  # else float32 products are cut to TF32
        flags = "--enable-scale-out" if cuda else f"--enable-scale-out {_WHOLE_PROMPTS}"
        words = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
        return f"{exact}VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server {flags} {words}"

    @property
    def facts(self) -> ModelFacts:
        """What the workers must agree with."""
        shapes, _ = expected_weights(self.model_path)
        return ModelFacts(shapes={name: list(shape) for name, shape in shapes.items()}, rope=asdict(self.rope))


def check_server(client: ServerClient, wanted: Wanted) -> Server:
    """The facts of a server that draws as our own engine would.

    Raises:
        Refused: it would not, or it lacks what we need of it; with the command that starts one that has it.
    """
    _check_version(client)
    remedy = wanted.remedy(client.url)
    _check_door(client.ask("GET", "/v1/models"), client, f"does not list models. {remedy}")
    world = client.ask("GET", "/get_world_size")
    _check_door(world, client, f"does not take weights, since VLLM_SERVER_DEV_MODE is not set. {remedy}")
    nothing = client.ask("POST", "/inference/v1/abort_requests", {"request_ids": []})
    _check_door(nothing, client, f"does not take tokens, since --enable-scale-out is not set. {remedy}")
    found = client.ask("GET", "/server_info?config_format=json", limit_s=60.0).json["vllm_config"]
    cuda = found["device_config"]["device"].startswith("cuda")
    remedy = wanted.remedy(client.url, cuda)
    if faults := [*_faults(found, wanted, cuda)]:
        raise Refused(f"{client.url} has {'; '.join(faults)}. {remedy}")
    if client.drawn is None:
        raise Refused(f"{client.url} does not say how much it draws; start it without --disable-log-stats")
    model = client.ask("POST", "/init_weight_transfer_engine", {"init_info": {"model": asdict(wanted.facts)}}, limit_s=60.0)
    if model.status != HTTPStatus.OK:
        raise Refused(f"{client.url} does not serve the run's model: {model}. {remedy}")
    return Server(workers=world.json["world_size"], most=found["scheduler_config"]["max_num_seqs"])


def _check_version(client: ServerClient) -> None:
    reply = client.ask("GET", "/version")
    try:
        version = Version(reply.json["version"])
    except (ValueError, KeyError, TypeError, InvalidVersion) as error:
        raise Refused(f"{client.url} is no vLLM server: of /version it says {reply}; correct rollout.servers") from error
    if not SERVERS <= version.release[:2] < BEYOND:
        known = ">={}.{},<{}.{}".format(*SERVERS, *BEYOND)
        raise Refused(f"{client.url} runs vLLM {version}, and servers work with vllm{known}; install it there")


def _check_door(reply: Reply, client: ServerClient, fault: str) -> None:
    if reply.status == HTTPStatus.UNAUTHORIZED:
        raise Refused(f"{client.url} wants its API key; set VLLM_API_KEY, as for the server, where the run is started")
    if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
        raise Refused(f"{client.url} {fault}")
    if reply.status != HTTPStatus.OK:
        raise Refused(f"{client.url} is not well: {reply}")


def _faults(found: dict[str, Any], wanted: Wanted, cuda: bool) -> Iterator[str]:
    """Options of the server that would change tokens or log-probs, or keep weights from it."""
    model, backend = found["model_config"], (found["weight_transfer_config"] or {}).get("backend")
    for option, has, needs in (
        ("--logprobs-mode", model["logprobs_mode"], "processed_logprobs"),
        ("--weight-transfer-config with backend", backend, WEIGHT_BACKEND),
        ("--dtype", str(model["dtype"]).removeprefix("torch."), wanted.dtype),
        ("--quantization", model["quantization"], None),
        ("--kv-cache-dtype", found["cache_config"]["cache_dtype"], "auto"),
        ("--data-parallel-size", found["parallel_config"]["data_parallel_size"], 1),
    ):
        if has != needs:
            yield f"{option} {has}, not {needs}"
    if not cuda and found["scheduler_config"]["enable_chunked_prefill"]:
        yield f"no {_WHOLE_PROMPTS}, without which vLLM on CPU ends at a seeded request that is prefilled in parts"
    if model["max_model_len"] < wanted.max_model_len:
        yield f"--max-model-len {model['max_model_len']}, and the run's sequences have up to {wanted.max_model_len} tokens"
