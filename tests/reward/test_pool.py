"""The grading processes: order, deadlines, crashes, threads, start-up."""

import asyncio
import concurrent.futures
import os
import random
import signal
import threading
import time

import pytest

from polaris.reward.pool import GraderPool
from polaris.reward.process import default_workers

# Legal text, and gold answers, whose values take minutes.
HANG = ("\\boxed{\\sum_{k=1}^{9999}\\sin(k^2)}", "\\sum_{k=1}^{9999}\\cos(k^2)")
PRODUCT = ("\\boxed{\\prod_{k=1}^{9999}\\sin(k)}", "\\prod_{k=1}^{9999}\\cos(k)")
ALGEBRA = ("\\boxed{1+x}", "x+1")


@pytest.fixture
def pool():
    with GraderPool(workers=2, timeout_s=3.0, require_thinking=False) as pool:
        yield pool


@pytest.fixture(scope="module")
def shared():
    """A pool for tests that kill no answer."""
    with GraderPool(workers=2, timeout_s=2.0, require_thinking=False) as pool:
        yield pool


def process_ids(pool):
    return [worker._process.pid for worker in list(pool._workers)]


def test_order_is_kept_over_mixed_items(shared):
    items, expected = [], []
    for i in range(50):
        items += [(f"\\boxed{{{i}}}", i), (f"\\boxed{{{i}+x}}", f"x+{i}"), (f"\\boxed{{x+{i}}}", f"y+{i}"), (f"{i}", i)]
        expected += ["correct", "correct", "wrong", "no_answer"]
    verdicts = shared.grade(items)
    assert [verdict.kind for verdict in verdicts] == expected
    assert [verdict.answer for verdict in verdicts[1::4]] == [f"{i}+x" for i in range(50)]
    assert shared.num_killed == 0


def test_hanging_answer_is_killed_and_later_answers_are_still_right(pool):
    assert pool.grade([ALGEBRA])[0].kind == "correct"
    before = set(process_ids(pool))
    start = time.monotonic()
    verdicts = pool.grade([HANG, ALGEBRA, PRODUCT, ALGEBRA, HANG])
    assert time.monotonic() - start < 30
    assert [verdict.kind for verdict in verdicts] == ["ungradable", "correct", "ungradable", "correct", "ungradable"]
    assert {verdict.reason for verdict in verdicts[::2]} == {"timeout"}
    assert pool.num_killed == 2, "the repeated answer was judged once"
    assert not before & set(process_ids(pool))
    assert [verdict.kind for verdict in pool.grade([ALGEBRA] * 6)] == ["correct"] * 6
    assert not any(os.path.exists(f"/proc/{pid}") for pid in before)


def test_order_of_a_step_survives_random_finish_times_and_kills(pool):
    """1,024 answers: 20 that kill, and others that take none, one or tens of milliseconds, shuffled."""
    draw = random.Random(0)
    items = [(f"\\boxed{{{i}}}", i, "correct") for i in range(400)] + [(f"no box {i}", i, "no_answer") for i in range(100)]
    items += [(f"\\boxed{{{i}+x}}", f"x+{i + i % 2}", "wrong" if i % 2 else "correct") for i in range(304)]
    items += [(f"\\boxed{{\\sum_{{k=1}}^{{{i % 9 + 1}}}k+{i}}}", f"{i}+\\sum_{{j=1}}^{{{i % 9 + 1}}}j", "correct") for i in range(200)]
    items += [(f"\\boxed{{\\sin(2^{{e^{{{25 + i}}}}})}}", "x+1", "ungradable") for i in range(2)] * 10
    draw.shuffle(items)
    verdicts = pool.grade([item[:2] for item in items])
    assert len(verdicts) == 1024
    for (response, _, expected), verdict in zip(items, verdicts, strict=True):
        assert verdict.kind == expected, response
        assert verdict.answer is None if expected == "no_answer" else f"\\boxed{{{verdict.answer}}}" == response
    assert sum(verdict.lost for verdict in verdicts) == 20
    assert [verdict.kind for verdict in pool.grade([ALGEBRA] * 6)] == ["correct"] * 6


def test_killed_idle_workers_are_replaced_without_a_wrong_verdict(shared):
    assert shared.grade([ALGEBRA] * 4)[0].kind == "correct"
    for pid in process_ids(shared):
        os.kill(pid, signal.SIGKILL)
    assert [verdict.kind for verdict in shared.grade([ALGEBRA] * 4)] == ["correct"] * 4
    assert shared.num_killed == 0


def test_worker_killed_at_work_is_a_crash_and_is_replaced():
    with GraderPool(workers=1, timeout_s=60.0, require_thinking=False) as pool:
        assert pool.grade([ALGEBRA])[0].kind == "correct"
        killer = threading.Timer(1.0, os.kill, (process_ids(pool)[0], signal.SIGKILL))
        killer.start()
        verdicts = pool.grade([HANG, ALGEBRA])
        assert [(verdict.kind, verdict.reason) for verdict in verdicts] == [("ungradable", "crashed"), ("correct", "equal")]
        assert pool.num_killed == 0


# Says that it is ready, takes a line, and shuts its mouth, but not its door: it lives on until somebody ends it.
MUTE = """#!/bin/sh
echo ready
read -r line
{confirmation}
exec >&-
exec sleep 600
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("confirmation", "verdict"), [("echo begun", ("ungradable", "crashed")), (":", ("correct", "equal"))])
def test_worker_that_closes_its_output_and_lives_on_is_replaced(monkeypatch, tmp_path, confirmation, verdict):
    """After it began the line its answer is lost; before, another worker gets the line. Either way nobody waits for it."""
    program = tmp_path / "mute"
    program.write_text(MUTE.format(confirmation=confirmation), encoding="utf-8")
    program.chmod(0o755)
    with monkeypatch.context() as replaced:
        replaced.setattr("sys.executable", str(program))
        pool = GraderPool(workers=1, timeout_s=60.0, require_thinking=False)
    with pool:
        mute, start = process_ids(pool)[0], time.monotonic()
        found = pool.grade([ALGEBRA])[0]
        assert time.monotonic() - start < 30
        assert (found.kind, found.reason) == verdict
        assert not os.path.exists(f"/proc/{mute}")
        assert pool.grade([("\\boxed{2+x}", "x+2")])[0].kind == "correct"
        assert process_ids(pool) != [mute]
        assert pool.num_killed == 0


def test_several_threads_share_a_pool(shared):
    results = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: shared.grade([ALGEBRA] * 5)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [verdict.kind for i in range(4) for verdict in results[i]] == ["correct"] * 20


def test_asyncio_tasks_share_a_pool_and_the_loop_runs_on(pool):
    async def tick():
        count = 0
        while True:
            await asyncio.sleep(0.01)
            count += 1
            ticks.append(count)

    async def several():
        clock = asyncio.create_task(tick())
        batches = [[(f"\\boxed{{{i}+x}}", f"x+{i}"), HANG, (f"\\boxed{{{i}}}", i)] for i in range(3)]
        found = await asyncio.gather(*(asyncio.to_thread(pool.grade, batch) for batch in batches))
        clock.cancel()
        return found

    ticks = []
    found = asyncio.run(several())
    assert [[verdict.kind for verdict in verdicts] for verdicts in found] == [["correct", "ungradable", "correct"]] * 3
    assert len(ticks) > 100, "the event loop stood still"


def test_close_cancels_a_batch_that_waits_in_another_thread():
    pool = GraderPool(workers=1, timeout_s=1.0, require_thinking=False)
    ended = []

    def grade():
        try:
            pool.grade([HANG, PRODUCT, *[(f"\\boxed{{\\sin(2^{{e^{{{i}}}}})}}", "x") for i in range(25, 45)]])
        except concurrent.futures.CancelledError:
            ended.append("cancelled")

    thread = threading.Thread(target=grade)
    thread.start()
    time.sleep(0.5)
    pool.close()
    thread.join(timeout=20)
    assert ended == ["cancelled"]


def test_cheap_answers_need_no_worker(pool):
    for pid in process_ids(pool):
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    kinds = [verdict.kind for verdict in pool.grade([("\\boxed{1}", 1), ("\\boxed{2}", 1), ("none", 1), ("\\boxed{x y}", "x y")])]
    assert kinds == ["correct", "wrong", "no_answer", "correct"]
    assert time.monotonic() - start < 1


def test_a_pool_survives_a_time_in_which_no_process_can_start(monkeypatch):
    with GraderPool(workers=1, timeout_s=2.0, require_thinking=False) as pool:
        assert pool.grade([ALGEBRA])[0].kind == "correct"
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nowhere/python")
            assert [verdict.reason for verdict in pool.grade([HANG])] == ["timeout"]
            with pytest.raises(RuntimeError, match=r"cannot start[\s\S]*No such file"):
                pool.grade([ALGEBRA])
        assert pool.grade([ALGEBRA])[0].kind == "correct"


def test_worker_that_cannot_start_is_an_error_with_its_last_words(monkeypatch, tmp_path):
    (tmp_path / "latex2sympy2_extended.py").write_text("raise ImportError('the parser is broken here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        GraderPool(workers=1, timeout_s=2.0, require_thinking=False) as pool,
        pytest.raises(RuntimeError, match=r"cannot start[\s\S]*the parser is broken here"),
    ):
        pool.grade([ALGEBRA])


def test_workers_see_no_secrets_and_no_terminal(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with GraderPool(workers=1, timeout_s=2.0, require_thinking=False) as other:
        assert other.grade([ALGEBRA])[0].kind == "correct"
        pid = process_ids(other)[0]
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
        assert b"HF_TOKEN" not in environment
        assert b"OMP_NUM_THREADS=1" in environment
        assert os.getsid(pid) == pid != os.getsid(0)


def test_zero_workers_means_a_share_of_the_cores():
    with GraderPool(workers=None, timeout_s=2.0, require_thinking=False) as pool:
        assert len(pool._workers) == min(16, max(1, len(os.sched_getaffinity(0)) // 2))


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(2, 1, 1), (64, 1, 16), (64, 8, 4), (16, 8, 1), (4, 8, 1)])
def test_ranks_of_one_machine_share_its_cores(monkeypatch, cores, ranks, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert default_workers() == workers


def test_close_leaves_no_process_behind():
    pool = GraderPool(workers=2, timeout_s=2.0, require_thinking=False)
    pool.grade([ALGEBRA] * 2)
    pids = process_ids(pool)
    pool.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
