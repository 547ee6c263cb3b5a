"""Every requirement of a package is there in a version that it takes, left out by name, or told."""

from pathlib import Path

import gpu_needs

LIST = Path(__file__).resolve().parents[2] / "requirements" / "gpu-kit.txt"


def package(folder, name, *requirements):
    """What pip leaves of an installed package."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0", *(f"Requires-Dist: {text}" for text in requirements)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_what_is_missing_or_of_a_wrong_version_is_told(tmp_path):
    package(tmp_path, "trainer", "Torch-Like>=2", "grader==1.*", "typing_x", "unknown-version>=9")
    versions = {"torch-like": "1.9", "grader": "1.4", "unknown-version": ""}
    assert gpu_needs.unmet([tmp_path], versions, set()) == [
        "trainer needs Torch-Like>=2, and 1.9 is there",
        "trainer needs typing_x, which is not there",
    ]


def test_markers_are_those_of_python_3_12_on_linux(tmp_path):
    here = ["six; python_version > '3.11'", "ninja; platform_machine == 'x86_64'"]
    elsewhere = ["old; python_version < '3.12'", "win; sys_platform == 'win32'", "docs; extra == 'docs'"]
    package(tmp_path, "trainer", *here, *elsewhere)
    assert [line.split()[2].rstrip(";,") for line in gpu_needs.unmet([tmp_path], {}, set())] == ["ninja", "six"]


def test_left_out_waives_one_package_s_requirement_alone(tmp_path):
    package(tmp_path, "engine", "server")
    package(tmp_path, "grader", "server")
    assert gpu_needs.unmet([tmp_path], {}, {("engine", "server")}) == ["grader needs server, which is not there"]


def test_the_list_is_read_whole():
    needs = gpu_needs.read(LIST)
    assert list(needs.parts) == ["machine", "base", "peers", "vllm"]
    assert needs.parts["machine"]["torch"] == "2.11.0"
    assert needs.parts["machine"]["pandas"] == ""
    assert needs.parts["base"]["latex2sympy2-extended"] == "1.11.0"
    assert ("vllm", "flashinfer-python") in needs.left_out
    assert ("verl", "transformers") in needs.left_out
    assert all(version for part in ("base", "peers", "vllm") for version in needs.parts[part].values())


def test_the_kit_carries_what_the_other_lists_pin():
    """The machine's figures are those of the versions that are tested here and benchmarked beside."""
    kit = {name: version for part in ("base", "peers") for name, version in gpu_needs.read(LIST).parts[part].items()}
    for file in ("cpu.txt", "peers.txt"):
        for line in (LIST.parent / file).read_text().splitlines():
            name, _, version = line.partition(";")[0].strip().partition("==")
            if (ours := kit.get(gpu_needs.canonicalize_name(name))) and not line.startswith("#"):
                assert ours == version, name
