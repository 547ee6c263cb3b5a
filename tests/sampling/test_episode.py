"""Several turns in one response: what is asked of the engine, what the rollout holds, and where it ends. The engine here is a script."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from torch.distributed import HashStore

from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.embedded.tokenizer import END, build_tokenizer
from polaris.errors import Refused, RunFailed
from polaris.rollout.types import GenerationInterrupted, Sampling, request_seed
from polaris.sampling.draw import Draw, sample
from polaris.sampling.episode import load_episode
from polaris.types import Prompt, Verdict

TOKENIZER = build_tokenizer()
STOP = TOKENIZER.convert_tokens_to_ids(END)
PROMPTS = [Prompt(id=name, text=name, tokens=(9, 10), ground_truth="1", source="x:1", row={"hint": name * 2}) for name in ("a", "b")]


class Script:
    """Writes `1=2` in every turn, with version 3 and the log-prob -0.5 for each token; remembers what it was asked."""

    def __init__(self, stop_in_call=None):
        self.calls, self.stop_in_call = [], stop_in_call

    def generate(self, requests, sampling, *, on_progress, should_stop, on_finished=None):
        self.calls.append((list(requests), sampling))
        if len(self.calls) == self.stop_in_call:
            raise GenerationInterrupted
        rollouts = []
        for request in requests:
            tokens = [*TOKENIZER("1=2")["input_ids"], STOP][: sampling.max_tokens]
            logprobs = np.full(len(tokens), -0.5, np.float32)
            why = "stop" if tokens[-1] == STOP else "length"
            rollouts.append(request.answered(np.array(tokens, np.int32), logprobs, why, 3, sampling.temperature))
        for rollout in reversed(rollouts) if on_finished else ():
            on_finished(rollout)
        return rollouts


ALONE = SimpleNamespace(rank=0, size=1, is_main=True, any=bool, gather=list, store=HashStore)


def play(episode, engine=None, world=ALONE, on_finished=None, max_tokens=40, **rollout):
    """Two samples of each prompt; the script's calls and the rollouts."""
    context = SimpleNamespace(
        config=RunConfig(seed=5, rollout=RolloutConfig(episode="mine:tool", **rollout)),
        world=world,
        tokenizer=TOKENIZER,
        engine=engine or Script(),
        console=SimpleNamespace(progress=lambda *counts: None),
        draws=iter([0]),
        stop=SimpleNamespace(requested=lambda: False),
        grader=SimpleNamespace(score=lambda items: [Verdict("wrong")] * len(items), has_raised=False),
        episode=episode,
    )
    sampling = Sampling(temperature=0.7, max_tokens=max_tokens)
    draw = Draw(prompts=PROMPTS, samples=2, sampling=sampling, stream="train", step=4)
    ended = []

    def hear(rollout):
        ended.append(rollout)
        if on_finished is not None:
            on_finished(rollout)

    with sample(context, draw, draw.requests(5), on_ended=hear) as sampled:
        if sampled.interrupted:
            raise GenerationInterrupted
    return context.engine.calls, sorted(ended, key=lambda rollout: (rollout.prompt_id, rollout.sample))


def for_b(turn):
    """A tool that answers the first turn of prompt b."""
    return "<|user|>3" if turn.prompt.id == "b" and turn.number == 0 else None


def test_a_response_holds_its_turns_and_what_was_read_between():
    heard = []
    calls, rollouts = play(for_b, on_finished=heard.append)
    assert [(rollout.prompt_id, rollout.sample) for rollout in rollouts] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(rollout.mask is None and len(rollout.tokens) == 4 and rollout.turns == 1 for rollout in rollouts[:2])
    turn, read = [*TOKENIZER("1=2")["input_ids"], STOP], TOKENIZER("<|user|>3")["input_ids"]
    assert len(read) == 2
    for rollout in rollouts[2:]:
        assert rollout.tokens.tolist() == [*turn, *read, *turn]
        assert rollout.mask.tolist() == [True] * 4 + [False] * 2 + [True] * 4
        assert rollout.logprobs.tolist() == [-0.5] * 4 + [0.0] * 2 + [-0.5] * 4
        assert rollout.versions.tolist() == [3] * 10
        assert (rollout.finish_reason, rollout.turns, rollout.read, rollout.temperature) == ("stop", 2, 2, 0.7)
        assert [array.dtype for array in (rollout.tokens, rollout.logprobs, rollout.versions)] == [np.int32, np.float32, np.int32]
    assert {(rollout.prompt_id, rollout.sample): rollout for rollout in heard} == {(r.prompt_id, r.sample): r for r in rollouts}
    assert [rollout.prompt_id for rollout in heard] == ["a", "a", "b", "b"], "a response is heard of as soon as it has ended"
    (first, sampling), (second, later) = calls
    assert [request.seed for request in first] == [request_seed(5, "train", 4, name, sample) for name in "ab" for sample in (0, 1)]
    assert [(request.prompt_id, request.sample) for request in second] == [("b", 0), ("b", 1)]
    assert all(request.prompt_tokens == (9, 10, *turn, *read) for request in second)
    assert [request.seed for request in second] == [request_seed(5, "train/turn-1", 4, "b", sample) for sample in (0, 1)]
    assert (sampling.max_tokens, later.max_tokens, later.temperature) == (40, 34, 0.7)


def test_the_function_hears_the_turn_with_its_prompt_and_all_before():
    turns = []

    def tool(turn):
        turns.append(turn)
        return "<|user|>3<|end|>" if turn.number < 2 else None

    play(tool)
    told = [turn for turn in turns if (turn.prompt.id, turn.rollout.sample) == ("b", 1)]
    words = [(turn.number, turn.text, turn.response) for turn in told]
    assert words == [
        (0, "1=2", "1=2"),
        (1, "1=2", "1=231=2"),
        (2, "1=2", "1=231=231=2"),
    ]
    assert told[2].prompt.row == {"hint": "bb"}
    assert [len(turn.rollout.tokens) for turn in told] == [4, 11, 18]


@pytest.mark.parametrize(
    ("limits", "length", "turns", "why"),
    [
        ({"max_turns": 1}, 4, 1, "stop"),
        ({"max_turns": 3}, 16, 3, "stop"),
        ({"max_tokens": 3}, 3, 1, "length"),
        ({"max_tokens": 6}, 4, 1, "length"),  # no room for a token behind what is read
        ({"max_tokens": 7}, 7, 2, "length"),
        ({"max_tokens": 10}, 10, 2, "length"),  # a third turn has no room
        ({"max_tokens": 11, "max_turns": 2}, 10, 2, "stop"),
    ],
)
def test_turns_end_at_the_limits_of_tokens_and_turns(limits, length, turns, why):
    _, rollouts = play(lambda turn: "<|user|>3", **limits)
    assert {(len(rollout.tokens), rollout.turns, rollout.finish_reason) for rollout in rollouts} == {(length, turns, why)}


def test_a_response_that_is_longer_than_others_is_cut_at_the_limit_of_its_own():
    calls, rollouts = play(lambda turn: None if turn.number else "<|user|>" + "3" * (1 + 30 * (turn.prompt.id == "b")), max_tokens=38)
    assert calls[1][1].max_tokens == 32, "the limit of a call is that of the shortest"
    assert [(len(rollout.tokens), rollout.finish_reason) for rollout in rollouts] == [(10, "stop")] * 2 + [(38, "length")] * 2


def test_an_exception_and_another_answer_end_the_run_with_the_name():
    with pytest.raises(RunFailed, match=r"rollout\.episode = 'mine:tool': turn 0 of prompt \w, sample \d failed.*(?s:.)*KeyError: 'no'"):
        play(lambda turn: turn.prompt.row["no"])
    with pytest.raises(RunFailed, match="TypeError: it returned int, and not a text or None"):
        play(lambda turn: 3)


def test_a_stop_keeps_what_has_ended():
    heard = []
    with pytest.raises(GenerationInterrupted):
        play(for_b, Script(stop_in_call=2), on_finished=heard.append)
    assert [rollout.prompt_id for rollout in heard] == ["a", "a"]


class Ranks:
    """Two ranks in two threads, with the collectives of `World`."""

    def __init__(self, rank, barrier, parts, store):
        self.store, self.is_main = lambda: store, rank == 0
        self.rank, self.size, self._barrier, self._parts = rank, 2, barrier, parts

    def gather(self, items):
        self._parts[self.rank] = list(items)
        self._barrier.wait(20)
        found = [item for part in self._parts for item in part]
        self._barrier.wait(20)
        return found

    def any(self, flag):
        return any(self.gather([flag]))


@pytest.mark.parametrize("stop_in_call", [None, 2])
def test_ranks_that_share_an_engine_ask_for_the_same_turns_and_one_asks_the_function(stop_in_call):
    barrier, parts, store, asked, found = threading.Barrier(2), [[], []], HashStore(), [], {}

    def tool(turn):
        asked.append(threading.current_thread().name)
        return for_b(turn)

    def work(rank):
        engine = Script(stop_in_call if rank == 1 else None)
        try:
            found[rank] = play(tool, engine, Ranks(rank, barrier, parts, store), tensor_parallel=2)
        except GenerationInterrupted:
            found[rank] = engine.calls, None

    threads = [threading.Thread(target=work, args=(rank,), name=str(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found[0][0] == found[1][0]
    assert set(asked) == {"0"}
    if stop_in_call:
        assert found[0][1] is found[1][1] is None
    else:
        assert [rollout.turns for rollout in found[0][1]] == [1, 1, 2, 2]
        assert found[1][1] == []


def test_a_function_with_other_arguments_is_refused_at_start(tmp_path, monkeypatch):
    (tmp_path / "my_tool.py").write_text("def tool(turn, more): return None\nTOOL = 3\ndef right(turn): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_episode(None) is None
    assert load_episode("my_tool:right").__name__ == "right"
    for name in ("tool", "TOOL"):
        with pytest.raises(Refused, match=rf"rollout\.episode = 'my_tool:{name}' must be a function of one argument, the turn"):
            load_episode(f"my_tool:{name}")
