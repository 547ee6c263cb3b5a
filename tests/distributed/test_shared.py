import threading
from pathlib import Path

from polaris.distributed.shared import check_shared


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


def check(folders):
    """What each of two ranks raised, of which each has its own folder."""
    barrier, board, raised = threading.Barrier(2, timeout=20), {}, {}

    def run(rank):
        try:
            check_shared(folders[rank], Rank(rank, barrier, board), patience_s=0.2)
        except ValueError as error:
            raised[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


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
