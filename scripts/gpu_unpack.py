"""Unpack the kit on the machine without network: `bash scripts/gpu_unpack.sh [LAYER...]`; see docs/gpu_kit.md.

Chunks in .kit are verified, kept in .gpu/chunks and joined once a layer is whole: packages go to .gpu/site, problems to .gpu/data, models,
de-quantised, to .gpu/models. `. .gpu/env.sh` puts the packages on Python's path, behind what is there. Called again, it skips what is done.
Without a layer's name a chunk that has not come yet is told and is no failure; a damaged one is, and so is a package that does not import.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from importlib import metadata
from pathlib import Path

import gpu_needs
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
IMPORTS = {
    "base": ("math_verify", "tyro", "datasets", "trl", "liger_kernel", "cut_cross_entropy", "gguf", "polaris.train"),
    "peers": ("verl.trainer.ppo.core_algos", "verl.utils.experimental.torch_functional", "verl.utils.kernel.linear_cross_entropy"),
    "vllm": (
        "torch",
        "vllm._C_stable_libtorch",
        "vllm.cumem_allocator",
        "vllm.vllm_flash_attn._vllm_fa3_C",
        "vllm.v1.engine.llm_engine",
    ),
}
"""What shows that a layer's packages work on this machine."""
ENVIRONMENT = {
    # vLLM's model runner V2 would import FlashInfer, which is not carried; seeded samples never use it
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # the hub cannot be reached, and waiting for it takes minutes
    "HF_HUB_OFFLINE": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="the layers that must be whole")
    parser.add_argument("--kit", type=Path, default=ROOT / ".kit", help="folder of the chunks")
    parser.add_argument("--into", type=Path, default=ROOT / ".gpu", help="where everything goes")
    arguments = parser.parse_args()
    kit, into = arguments.kit.resolve(), arguments.into.resolve()
    if not (kit / "manifest.json").is_file():
        sys.exit(f"gpu_unpack: {kit / 'manifest.json'} did not travel; name it in carry")
    manifest = json.loads((kit / "manifest.json").read_text())
    layers = manifest["layers"]
    if unknown := set(arguments.layers) - set(layers):
        sys.exit(f"gpu_unpack: the kit has no layer {', '.join(sorted(unknown))}, only {', '.join(layers)}")
    for folder in ("chunks", "done", "site"):
        (into / folder).mkdir(parents=True, exist_ok=True)
    failed = {name for name, layer in layers.items() if not unpack(name, layer, kit, into, name in arguments.layers)}
    write_environment(into)
    new = {name: layer for name, layer in layers.items() if not is_done(name, layer, into) and is_whole(layer, into)}
    failed |= prepare(new, into)
    if new:
        notes(into, manifest["left_out"])
    return int(bool(failed))


def unpack(name: str, layer: dict, kit: Path, into: Path, wanted: bool) -> bool:
    """Whether all is well so far: the layer is there, or whole and unpacked, or waits for chunks that nobody wants yet."""
    if is_done(name, layer, into):
        print(f"{name}: is there")
        return True
    missing, damaged = collect(layer["chunks"], kit, into / "chunks")
    if missing or damaged:
        faults = [f"{chunk} is missing" for chunk in missing] + [f"{chunk} is damaged" for chunk in damaged]
        print(f"{name}: waits, {', '.join(faults)}")
        return not damaged and not wanted
    began = time.perf_counter()
    extract(layer, into)
    print(f"{name}: unpacked {layer['bytes'] / MIB:.1f} MiB in {time.perf_counter() - began:.1f} s", flush=True)
    return True


def is_done(name: str, layer: dict, into: Path) -> bool:
    file = into / "done" / name
    return file.is_file() and file.read_text() == layer["sha256"]


def is_whole(layer: dict, into: Path) -> bool:
    return all((into / "chunks" / chunk["file"]).is_file() for chunk in layer["chunks"])


def collect(chunks: list[dict], kit: Path, kept: Path) -> tuple[list[str], list[str]]:
    """Keep the good chunks that came, and tell which ones are missing and which damaged."""
    missing, damaged = [], []
    for chunk in chunks:
        places = [place for place in (kept / chunk["file"], kit / chunk["file"]) if place.is_file()]
        good = next((place for place in places if hashlib.sha256(place.read_bytes()).hexdigest() == chunk["sha256"]), None)
        if good is None:
            (damaged if places else missing).append(chunk["file"])
        elif good.parent != kept:
            shutil.copyfile(good, kept / chunk["file"])
    return missing, damaged


def extract(layer: dict, into: Path) -> None:
    data = b"".join((into / "chunks" / chunk["file"]).read_bytes() for chunk in layer["chunks"])
    with lzma.open(io.BytesIO(data)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(into / layer["into"], filter="data")


def write_environment(into: Path) -> None:
    site = shlex.quote(str(into / "site"))
    lines = [f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{site}', *(f"export {name}={value}" for name, value in ENVIRONMENT.items())]
    (into / "env.sh").write_text("\n".join(lines) + "\n")


def prepare(layers: dict[str, dict], into: Path) -> set[str]:
    """Import what was unpacked and de-quantise the models, all at once; what works is done, and the names of the rest come back."""
    before = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([*filter(None, before), str(into / "site")])}
    running = {}
    for name in layers:
        gguf, folder = into / "gguf" / f"{name}.gguf", into / "models" / name
        work = ["-c", "import " + ", ".join(IMPORTS.get(name, ["sys"]))]
        if gguf.is_file():
            work = [str(ROOT / "scripts" / "gpu_model.py"), str(gguf), str(folder)]
        running[name] = subprocess.Popen([sys.executable, *work], env=environment)
    failed = set()
    for name, process in running.items():
        if process.wait() != 0:
            print(f"{name}: does not work on this machine, see above")
            failed.add(name)
            continue
        (into / "done" / name).write_text(layers[name]["sha256"])
        for chunk in layers[name]["chunks"]:
            (into / "chunks" / chunk["file"]).unlink()
        (into / "gguf" / f"{name}.gguf").unlink(missing_ok=True)
        print(f"{name}: works", flush=True)
    return failed


def notes(into: Path, left_out: list[list[str]]) -> None:
    """Tell versions of this machine's packages that the kit's do not accept. Most do no harm."""
    found = metadata.distributions(path=[*sys.path, str(into / "site")])
    versions = {canonicalize_name(package.metadata["Name"]): package.version for package in found}
    for line in gpu_needs.unmet([into / "site"], versions, {(owner, name) for owner, name in left_out}):
        print(f"note: {line}")


if __name__ == "__main__":
    sys.exit(main())
