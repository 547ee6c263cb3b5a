"""The memory that a process may have: its host's, or less by its control groups."""

import os

import pytest

from polaris import host


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_GROUPS", tmp_path)
    monkeypatch.setattr(host, "_OWN", tmp_path / "own")
    return tmp_path


def limited(group, limit, anon=300_000):
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.stat").write_text(f"anon {anon}\nfile 900000\nshmem 100000\n")


def test_a_container_sees_its_limit_at_the_root(groups):
    physical, free = host.host_memory(), host.free_host_memory()
    assert physical == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limited(groups, "max")
    assert host.host_memory() == physical
    assert host.free_host_memory() == pytest.approx(free, rel=0.2)
    limited(groups, 1_000_000)
    assert (host.host_memory(), host.free_host_memory()) == (1_000_000, 600_000)


def test_a_job_of_slurm_has_its_limit_in_a_group_above_its_steps(groups):
    (groups / "own").write_text("1:name=systemd:/other\n0::/slurm/job_7/step_0/task_0\n")
    limited(groups / "slurm" / "job_7", 1_000_000, anon=700_000)
    limited(groups / "slurm" / "job_7" / "step_0" / "task_0", "max")
    limited(groups / "slurm", 5_000_000)
    assert (host.host_memory(), host.free_host_memory()) == (1_000_000, 200_000)
