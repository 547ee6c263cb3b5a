"""Runs of the real command on the embedded model, and what they leave on disk."""

import json
import subprocess
import sys
import time

from programs import Program, run_ranks

ENGINE = ("--model", "embedded:model", "--engine", "transformers", "--dtype", "float32", "--workers", "1", "--prompt-suffix", "")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "polaris.evaluate")


def start(output, *options):
    return Program("-m", "polaris.cli", "eval", "--output", output, *options)


def run(output, *options, status=0):
    """The output of a command that ends with `status`."""
    return ended(start(output, *options), status)


def ended(process, status):
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, err[-3000:]
    return out + err


def run_on_two_ranks(output, *options):
    run_ranks(2, "-m", "polaris.evaluate", "--output", output, *options)


def run_by_torchrun(output, *options, status):
    """The output of a command on two ranks that ends with `status`."""
    command = [*TORCHRUN, "--output", str(output), *options]
    return ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), status)


def lines(output):
    """Every whole line of every sample file."""
    return [json.loads(line) for path in sorted(output.rglob("samples-rank*.jsonl")) for line in path.read_bytes().split(b"\n")[:-1]]


def samples(output):
    """Response and token count by factor, set, problem and sample; no sample may be there twice."""
    found = {}
    for path in output.rglob("samples-rank*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            key = (path.parent.name, row["set"], row["problem"], row["sample"])
            assert key not in found, f"{key} was generated twice"
            found[key] = (row["response"], row["tokens"], row["seed"])
    return found


def result(output):
    return json.loads((output / "result.json").read_text(encoding="utf-8"))


def wait_for_lines(output, count, process):
    deadline = time.monotonic() + 300
    while len(lines(output)) < count:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
