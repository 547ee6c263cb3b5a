"""What a sleeping engine has given back is no memory of the trainer's."""

import torch

from polaris.run.peak import PeakMemory


class Asleep:
    asleep_bytes = 60 << 30


def test_the_pool_of_a_sleeping_engine_is_taken_off(monkeypatch):
    peaks, engine = iter([70 << 30, 75 << 30]), Asleep()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peaks))
    engine.asleep_bytes = 0
    memory = PeakMemory(engine)
    memory.end("rollout")
    engine.asleep_bytes = 60 << 30
    memory.end("update")
    assert memory.facts() == {"memory/peak_gib": 70.0, "memory/rollout_gib": 70.0, "memory/update_gib": 15.0}


def test_without_a_gpu_it_is_the_process():
    facts = PeakMemory(Asleep()).facts()
    assert facts.keys() == {"memory/peak_gib"}
    assert 0.05 < facts["memory/peak_gib"] < 24
