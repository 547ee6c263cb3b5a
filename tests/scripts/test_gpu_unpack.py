"""Chunks that were cut here are joined there: whole layers work, missing and damaged chunks are named, what is done is skipped."""

import json
import subprocess
import sys
from pathlib import Path

import gpu_kit
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_unpack.py"


@pytest.fixture
def kit(tmp_path):
    """A kit of two layers in three chunks: `words` in the first call, `numbers` over both."""
    kit = tmp_path / "kit"

    def build(name, size):
        def fill(folder):
            (folder / "data").mkdir()
            (folder / "data" / name).write_bytes(bytes(i * i % 251 for i in range(size)))

        return fill

    archives = {
        name: gpu_kit.archive(name, str(size), build(name, size), kit / "cache") for name, size in {"words": 10, "numbers": 5000}.items()
    }
    manifest = gpu_kit.cut(archives, kit, archives["words"].stat().st_size + 100)
    (kit / "manifest.json").write_text(json.dumps(manifest | {"left_out": []}))
    assert [chunk["call"] for layer in manifest["layers"].values() for chunk in layer["chunks"]][:3] == [1, 1, 2]
    return kit


def unpack(kit, *layers):
    command = [sys.executable, SCRIPT, *layers, "--kit", kit, "--into", kit.parent / "gpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode, result.stdout.splitlines()


def away(kit, name):
    (kit / name).rename(kit.parent / name)


def test_everything_comes_out_as_it_went_in_and_only_once(kit):
    status, lines = unpack(kit)
    assert status == 0
    assert [line for line in lines if line.endswith("works")] == ["words: works", "numbers: works"]
    for name in ("words", "numbers"):
        assert (kit.parent / "gpu/data" / name).read_bytes() == (kit / "cache" / name / "data" / name).read_bytes()
    assert not list((kit.parent / "gpu/chunks").iterdir())
    assert unpack(kit, "numbers") == (0, ["words: is there", "numbers: is there"])


def test_a_layer_waits_for_the_chunk_of_a_later_call(kit):
    away(kit, "numbers-2")
    status, lines = unpack(kit)
    assert status == 0
    assert "numbers: waits, numbers-2 is missing" in lines
    assert "words: works" in lines
    away(kit, "words-1")
    away(kit, "numbers-1")
    (kit.parent / "numbers-2").rename(kit / "numbers-2")
    status, lines = unpack(kit, "numbers")
    assert (status, lines[0], lines[-1]) == (0, "words: is there", "numbers: works")


def test_a_named_layer_that_is_not_whole_fails(kit):
    away(kit, "numbers-1")
    assert unpack(kit, "numbers")[0] == 1
    assert unpack(kit, "words")[0] == 0


def test_a_damaged_chunk_is_named_and_replaced_later(kit):
    whole = (kit / "numbers-1").read_bytes()
    (kit / "numbers-1").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, lines = unpack(kit)
    assert status == 1
    assert "numbers: waits, numbers-1 is damaged" in lines
    (kit / "numbers-1").write_bytes(whole)
    assert unpack(kit)[0] == 0


def test_without_the_manifest_it_says_what_to_carry(kit):
    away(kit, "manifest.json")
    command = [sys.executable, SCRIPT, "--kit", kit, "--into", kit.parent / "gpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "name it in carry" in result.stderr


def test_a_package_that_does_not_import_is_not_done(kit):
    manifest = json.loads((kit / "manifest.json").read_text())
    manifest["layers"] = {"peers": manifest["layers"]["words"]}  # no verl in it
    (kit / "manifest.json").write_text(json.dumps(manifest))
    for _ in range(2):
        status, lines = unpack(kit)
        assert status == 1
        assert lines[-1] == "peers: does not work on this machine, see above"


def test_the_environment_comes_behind_what_is_there(kit):
    unpack(kit)
    gpu = kit.parent / "gpu"
    shown = subprocess.run(["bash", "-c", f". {gpu}/env.sh; echo $PYTHONPATH"], capture_output=True, text=True, env={"PYTHONPATH": "/ours"})
    assert shown.stdout.strip() == f"/ours:{gpu}/site"


def test_no_call_carries_more_than_it_may(tmp_path):
    archives = {}
    for index, size in enumerate([30, 50, 5, 5, 5, 5, 5, 5, 5, 120]):
        (tmp_path / f"layer{index}").write_bytes(b"x" * size)
        archives[f"layer{index}"] = tmp_path / f"layer{index}"
    chunks = [chunk for layer in gpu_kit.cut(archives, tmp_path, 60)["layers"].values() for chunk in layer["chunks"]]
    for call in {chunk["call"] for chunk in chunks}:
        carried = [chunk for chunk in chunks if chunk["call"] == call]
        assert sum(chunk["bytes"] for chunk in carried) <= 60
        assert len(carried) <= gpu_kit.PATHS - 1
    assert [chunk["bytes"] for chunk in chunks][:3] == [30, 30, 20]
    assert sum(chunk["bytes"] for chunk in chunks) == 235


def test_what_is_dropped_leaves_no_empty_folder(tmp_path):
    kept = ["vllm/__init__.py", "vllm/third_party/pynvml.py", "vllm/_C_stable_libtorch.abi3.so", "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so"]
    gone = [
        "bin/tool",
        "tests/__init__.py",
        "vllm/_moe_C_stable_libtorch.abi3.so",
        "vllm/third_party/deep_gemm/include/a/b.h",
        "vllm/third_party/deep_gemm/x.py",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    gpu_kit.drop(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {*kept, "vllm", "vllm/third_party", "vllm/vllm_flash_attn"}
