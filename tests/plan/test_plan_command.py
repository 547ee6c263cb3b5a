"""`polaris plan`, in this process, on a model folder with a config.json alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.plan.shapes import write
from polaris.cli import _run
from polaris.errors import Refused
from polaris.plan.page import SLURM_WARNING_S

SBATCH = Path(__file__).parents[2] / "scripts" / "slurm" / "train.sbatch"
TRAIN = """
[model]
path = "{folder}"
[rollout]
max_response_tokens = 16384
[memory]
activations = "{activations}"
"""


@pytest.fixture
def config(tmp_path):
    def make(name="Qwen3-4B", text=TRAIN, activations="recompute"):
        folder = write(name, tmp_path / name)
        path = tmp_path / "my.toml"
        path.write_text(text.format(folder=folder, activations=activations))
        return str(path)

    return make


def test_options_may_stand_before_and_behind_the_configuration(config, capsys):
    path = config()
    assert _run(["plan", "--gpus", "8", "--gpu", "h100", path]) == 0
    first = capsys.readouterr().out
    assert _run(["plan", path, "--gpus=8", "--rollout.max_response_tokens=16384", "--gpu", "H100 80GB"]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith("4.02B parameters on 8 x H100 80GB, longest pack 32,768 tokens\n")
    # 16 bytes for each of 4.02B parameters over 8 GPUs: 1.87, 3.75 and 1.87 GiB.
    assert all(part in first for part in ("moments 3.7,", "weights 1.9", "gradients 1.9", "45.0 GiB, 2 of which stay"))
    assert "GPU-hours" in first


def test_nodes_lengths_and_settings_change_it(config, capsys):
    path = config()
    _run(["plan", path, "--gpus=8", "--gpu=h200", "--nodes=2", "--mean-tokens=1000", "--memory.optimizer=host"])
    found = capsys.readouterr().out
    assert "16 x H200 141GB on 2 nodes" in found
    assert "mean response 6% of the limit" in found
    assert "host memory of a node" in found
    assert "gradients, moments 36.0" in found


def test_what_does_not_fit_is_planned_and_refused_with_the_rung(config, capsys):
    with pytest.raises(Refused, match=r'sampling of 4\.0B parameters on 1 GPU takes .* memory\.optimizer = "host"'):
        _run(["plan", config(), "--gpus", "1", "--gpu", "H100 80GB"])
    found = capsys.readouterr().out
    assert "an update" in found
    assert "GPU-hours" not in found


def test_an_update_longer_than_slurms_warning_is_said(config, capsys):
    assert f"#SBATCH --signal=B:USR1@{SLURM_WARNING_S}\n" in SBATCH.read_text()
    for prompts, warned in ((128, False), (2048, True)):
        _run(["plan", config(), "--gpus=8", "--gpu=h100", f"--trainer.prompts_per_step={prompts}"])
        found = capsys.readouterr().out
        stage = next(line.split() for line in found.splitlines() if line.strip().startswith("1 "))
        update = float(stage[4].removesuffix("s"))
        assert (update > SLURM_WARNING_S) == warned == ("under Slurm give sbatch --signal=B:USR1@" in found)
        if warned:
            assert 2 * update <= float(found.partition("USR1@")[2].split()[0]) <= 2 * update + 1200


def test_fine_tuning_is_planned_without_an_engine(config, capsys):
    text = '[model]\npath = "{folder}"\n[memory]\nactivations = "{activations}"\n[data]\npath = "x.jsonl"\nmax_tokens = 8192\n'
    assert _run(["plan", config("Qwen3-1.7B", text), "--gpus=2", "--gpu=h100"]) == 0
    found = capsys.readouterr().out
    assert "1.72B parameters on 2 x" in found
    assert "engine" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "H1000"], "--gpu 'H1000' is unknown; did you mean 'H100 80GB'"),
        (["--model.path=/nowhere"], "model.path = /nowhere has no config.json"),
        (["--rollout.max_response_token=1"], "max_response_tokens"),
    ],
)
def test_bad_input_names_the_remedy(config, arguments, message):
    with pytest.raises(Refused, match=message):
        _run(["plan", config(), "--gpus=8", *arguments])


def test_help_loads_no_torch():
    code = "import sys; from polaris.cli import _parser; _parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["--gpus=8", "--distributed.sequence_parallel=3"], r"sequence_parallel = 3 does not divide the 8 ranks"),
        (["--gpus=64", "--distributed.sequence_parallel=64"], r"does not divide the 32 attention heads"),
        (["--gpus=8", "--distributed.replicas=3"], r"replicas = 3 does not divide the 8 ranks"),
        (["--gpus=2", "--rollout.tensor_parallel=4"], r"tensor_parallel = 4 does not divide the 2 ranks"),
        (["--model.lora.rank=8", "--model.lora.sync=adapter", "--rollout.tensor_parallel=2"], 'set model.lora.sync to "merged"'),
        (["--gpus=8", "--rollout.max_response_tokens=65536"], r"exceeds the model's 40960 positions; .* rope\.max_positions to 66560"),
        (["--model.lora.rank=8", '--model.lora.targets=["nope"]'], r"'nope' is no linear layer of the decoder's layers; there are q_proj"),
    ],
)
def test_what_a_start_would_refuse_is_refused(overrides, remedy, config):
    with pytest.raises(Refused, match=remedy):
        _run(["plan", config(), "--gpu=h100", *overrides])
