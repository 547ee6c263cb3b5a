import threading
from pathlib import Path

import numpy as np

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.sft import SftConfig, SftDataConfig
from polaris.data.conversations import Example
from polaris.distributed.shared import check_same, check_shared
from polaris.supervised.checks import CheckedSft, check_ranks
from polaris.supervised.examples import ExampleSet


class Rank:
    """A thread that is one of two ranks."""

    size = 2

    def __init__(self, rank, barrier, board):
        self.rank, self.is_main, self.barrier, self._board = rank, rank == 0, barrier.wait, board

    def gather(self, items):
        self._board[self.rank] = list(items)
        self.barrier()
        found = self._board[0] + self._board[1]
        self.barrier()
        return found


def both(work):
    """What each of two ranks raised that do `work(rank, world)`."""
    barrier, board, raised = threading.Barrier(2, timeout=20), {}, {}

    def run(rank):
        try:
            work(rank, Rank(rank, barrier, board))
        except ValueError as error:
            raised[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def check(folders):
    return both(lambda rank, world: check_shared(folders[rank], world, patience_s=0.2))


def test_one_folder_for_both(tmp_path):
    assert check([tmp_path / "run"] * 2) == {}
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_of_its_own_is_refused_on_every_rank(tmp_path):
    raised = check([tmp_path / "a", tmp_path / "b"])
    assert raised.keys() == {0, 1}
    assert "rank 1: what rank 0 writes into" in raised[0]
    assert "must be a folder that all nodes share" in raised[1]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_on_every_rank(tmp_path):
    (tmp_path / "file").touch()
    assert check([tmp_path / "file" / "run"] * 2).keys() == {0, 1}


def test_a_file_that_shows_late_is_seen(tmp_path, monkeypatch):
    shown, exists = [], Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: exists(path) and bool(shown.append(path) or len(shown) > 3))
    assert check([tmp_path] * 2) == {}


def test_a_missing_file_is_asked_for_now_and_then_not_all_the_time(tmp_path, monkeypatch):
    asked, exists = [], Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: asked.append(path) or exists(path))
    check([tmp_path / "a", tmp_path / "b"])
    assert len([path for path in asked if path.parent == tmp_path / "b"]) <= 6, "0.2 s, every 0.05 s"


def test_ranks_that_read_other_prompts_are_refused_by_their_name():
    assert both(lambda rank, world: check_same({"config": "x", "train.jsonl": "same"}, world)) == {}
    raised = both(lambda rank, world: check_same({"config": "x", "train.jsonl": f"digest {rank}"}, world))
    assert raised.keys() == {0, 1}
    assert all(text.startswith("train.jsonl: not all ranks read the same") for text in raised.values())


def test_a_fine_tuning_whose_ranks_hold_out_other_examples_is_refused(tmp_path):
    config = SftConfig(data=SftDataConfig(path="chats.jsonl"))

    def example(token):
        return Example(tokens=np.array([1, token], np.int32), mask=np.array([False, True]), source="chats.jsonl:1")

    def checked(held_out):
        data = ExampleSet(examples=(example(2),), held_out=(example(held_out),), rows=2, too_long=0, empty=0)
        return CheckedSft(config=config, model=None, tokenizer=None, data=data, held_out_set=None)

    def raised(*held_out):
        return both(lambda rank, world: check_ranks(checked(held_out[rank]), RunFolder(tmp_path), world))

    assert raised(3, 3) == {}
    said = raised(3, 4)
    assert said.keys() == {0, 1}
    assert all(text.startswith("the held-out examples: not all ranks read the same") for text in said.values())
