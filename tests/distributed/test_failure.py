"""Who says why ranks fail, by what torchrun's store holds."""

from polaris.distributed.failure import concerns_all, should_print
from polaris.distributed.mesh import ALONE, Job


class Store(dict):
    def set(self, key, value):
        self[key] = value.encode()

    def check(self, keys):
        return all(key in self for key in keys)


class Gone:
    def set(self, key, value):
        raise RuntimeError("connection reset by peer")

    def check(self, keys):
        raise RuntimeError("connection reset by peer")


def fails(rank, reason, store):
    return should_print(Job(rank=rank, size=2, store=store), reason, patience_s=0.05)


def test_the_first_of_those_with_one_reason_speaks():
    store = Store()
    assert fails(0, "the disk is full", store)
    assert not fails(1, "the disk is full", store)
    assert fails(1, "no such file", store)


def test_what_all_ranks_fail_of_concerns_all():
    store = Store()
    jobs = [Job(rank=rank, size=2, store=store) for rank in range(2)]
    fails(0, "the disk is full", store)
    assert not concerns_all(jobs[0], "the disk is full"), "the other one may live"
    fails(1, "the disk is full", store)
    assert concerns_all(jobs[0], "the disk is full")
    fails(1, "no such file", store)
    assert not concerns_all(jobs[0], "the disk is full")
    assert not concerns_all(Job(rank=1, size=2, store=Gone()), "the disk is full")
    assert concerns_all(ALONE, "the disk is full")


def test_a_rank_whose_store_is_gone_speaks_for_itself():
    assert fails(1, "the disk is full", Gone())


def test_one_rank_alone_needs_no_store():
    assert should_print(ALONE, "the disk is full")
