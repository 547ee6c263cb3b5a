import threading
from pathlib import Path

from polaris.distributed.shared import check_same, check_shared


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
