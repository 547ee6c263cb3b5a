"""The launchers for several nodes, with programs in the places of Slurm's, ssh and torchrun that do as these do with signals."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STUBS = {
    # Two tasks; it ends with the largest status, and forwards nothing: that is what scancel is for.
    "srun": """
        while [ "${1#-}" != "$1" ]; do echo "$1" >> srun-options; shift; done
        for node in 0 1; do SLURM_NODEID=$node "$@" & pids="$pids $!"; done
        most=0
        for pid in $pids; do wait $pid; code=$?; [ $code -le $most ] || most=$code; done
        exit $most
    """,
    "scontrol": """
        echo "$@" >> scontrol-calls
        if [ "$1" = show ]; then echo node-a; echo node-b; fi
    """,
    # Every process of the steps, not the batch script.
    "scancel": """
        echo "$@" >> scancel-calls
        for file in run-*; do kill -TERM "$(cat "$file")"; done
    """,
    "ssh": """
        while [ "$1" = -o ]; do shift 2; done
        echo "$1" >> hosts; shift; cd /
        exec bash -c "$*"
    """,
    # Saves for a while after SIGTERM, and ends with 143; FAILS and ENDS are the node that ends by itself, with 1 or 0.
    "torchrun": """
        case $1 in --node-rank=*) node=${1#--node-rank=} ;; esac
        echo "$@" >> "torchrun-$node"; env > "environment-$node"
        trap 'sleep 0.3; echo $node >> saved; rm -f run-$node; exit ${AFTER:-143}' TERM
        [ "$node" != "${FAILS:-}" ] || { sleep 0.2; exit 1; }
        [ -z "${ENDS:-}" ] || exit 0
        echo $$ > run-$node
        while :; do sleep 0.02; done
    """,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in STUBS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib 0")
    monkeypatch.setenv("RANKS_PER_NODE", "4")
    for name, value in {"JOB_ID": "70123", "JOB_NUM_NODES": "2", "JOB_NODELIST": "node-[a-b]", "SUBMIT_DIR": SCRIPTS.parent}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    return tmp_path


class Launcher:
    def __init__(self, place, script, *arguments, **environment):
        command = ["bash", str(SCRIPTS / script), *arguments]
        pipe = subprocess.PIPE
        self.place, environment = place, os.environ | environment
        # A test that runs in the background of a shell has inherited that Ctrl-C is ignored, which a script cannot undo.
        heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        self.process = subprocess.Popen(command, cwd=place, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True, **heard)

    def runs(self):
        """Both nodes train."""
        deadline = time.monotonic() + 30
        while len(list(self.place.glob("run-*"))) < 2:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.05)
        return self

    def tell(self, number):
        self.process.send_signal(number)
        return self

    def ends(self):
        self.said, _ = self.process.communicate(timeout=60)
        return self.process.returncode

    def lines(self, name):
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def requeued(self):
        return [call for call in self.lines("scontrol-calls") if not call.startswith("show")]


def test_a_job_whose_time_is_over_saves_and_is_queued_again_once(place):
    job = Launcher(place, "slurm/train.sbatch", "my.toml", "--name=my run").runs().tell(signal.SIGUSR1)
    assert job.ends() == 143, job.said
    assert sorted(job.lines("saved")) == ["0", "1"], "it has waited until both nodes have saved"
    assert job.lines("scancel-calls") == ["--signal=TERM 70123"]
    assert job.requeued == ["requeue 70123"]
    for node in "01":
        options = job.lines(f"torchrun-{node}")[0].split(" -m ")
        assert options[1] == "polaris.train my.toml --name=my run"
        wanted = {f"--node-rank={node}", "--nnodes=2", "--nproc-per-node=4", "--master-addr=node-a", "--master-port=20123"}
        assert wanted <= set(options[0].split())
    assert any(line.startswith("TORCH_ELASTIC_SHUTDOWN_TIMEOUT=8") for line in job.lines("environment-0"))


def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(place):
    job = Launcher(place, "slurm/train.sbatch", "my.toml").runs()
    subprocess.run(["scancel", "70123"], cwd=place, check=True)  # Slurm tells the steps and the batch script
    assert job.tell(signal.SIGTERM).ends() == 143
    assert sorted(job.lines("saved")) == ["0", "1"]
    assert job.requeued == []


@pytest.mark.parametrize(("environment", "status"), [({"ENDS": "1"}, 0), ({"ENDS": "1", "FAILS": "1"}, 1)], ids=["done", "failed"])
def test_a_job_that_ends_by_itself_has_its_status(place, environment, status):
    job = Launcher(place, "slurm/train.sbatch", "my.toml", **environment)
    assert job.ends() == status
    assert job.requeued == []


@pytest.mark.parametrize("after", ["0", "1"], ids=["done", "failed"])
def test_a_job_that_is_done_or_fails_while_its_time_runs_out_is_not_queued_again(place, after):
    job = Launcher(place, "slurm/train.sbatch", "my.toml", AFTER=after).runs().tell(signal.SIGUSR1)
    assert job.ends() == int(after)
    assert job.requeued == []


def test_each_job_of_an_array_has_its_line_of_options(place):
    (place / "sweep.txt").write_text("--name=a --optimizer.lr=1e-6\n--name=b --data.prompt_suffix='Think first.'\n")
    job = Launcher(place, "slurm/sweep.sbatch", "my.toml", "sweep.txt", SLURM_ARRAY_TASK_ID="2", SLURM_JOB_ID="70125").runs()
    assert job.tell(signal.SIGUSR1).ends() == 143, job.said
    assert job.lines("torchrun-0")[0].endswith("-m polaris.train my.toml --name=b --data.prompt_suffix=Think first.")
    assert job.requeued == ["requeue 70125"]
    beyond = Launcher(place, "slurm/sweep.sbatch", "my.toml", "sweep.txt", SLURM_ARRAY_TASK_ID="3")
    assert (beyond.ends(), beyond.said) == (2, "sweep.txt has no line 3; give sbatch --array=1-2\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nodes_over_ssh_save_when_the_launcher_is_told_or_dies(place, number):
    job = Launcher(place, "torchrun_nodes.sh", "node-a,node-b", "my.toml", "--name=my run", PROGRAM="polaris.sft").runs().tell(number)
    assert job.ends() == (143 if number != signal.SIGKILL else -signal.SIGKILL), job.said
    assert sorted(job.lines("saved")) == ["0", "1"]
    assert sorted(job.lines("hosts")) == ["node-a", "node-b"]
    options = job.lines("torchrun-1")[0]
    assert options.endswith("-m polaris.sft my.toml --name=my run")
    assert "--nnodes=2 --nproc-per-node=4 --max-restarts=1 --master-addr=node-a" in options
    assert "NCCL_SOCKET_IFNAME=ib 0" in job.lines("environment-1")


def test_a_node_that_fails_ends_the_others_over_ssh(place):
    job = Launcher(place, "torchrun_nodes.sh", "node-a,node-b", "my.toml", FAILS="1")
    assert job.ends() == 1
    assert job.lines("saved") == ["0"]


def test_nodes_over_ssh_that_are_done(place):
    assert Launcher(place, "torchrun_nodes.sh", "node-a,node-b", "my.toml", ENDS="1").ends() == 0
    assert Launcher(place, "torchrun_nodes.sh", "my.toml").ends() == 2
