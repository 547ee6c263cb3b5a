from tiny_models import prompt, requests_for

from polaris.rollout.types import Sampling


def test_each_rollout_is_heard_as_soon_as_it_ends(engine):
    requests = requests_for(prompt(5), prompt(9, start=3), samples=40)
    heard, finished = [], []

    def progress(state):
        finished.append((state.finished, len(heard)))

    sampling = Sampling(temperature=1.0, max_tokens=64)
    rollouts = engine.generate(requests, sampling, on_progress=progress, should_stop=lambda: False, on_finished=heard.append)
    lengths = [len(rollout.tokens) for rollout in rollouts]
    assert len(set(lengths)) > 5
    assert [r.seed for r in heard] != [r.seed for r in rollouts], "they were heard in the order of the requests, so only at the end"
    assert all(count == told for count, told in finished)
    by_name = {(rollout.prompt_id, rollout.sample): rollout for rollout in heard}
    assert len(by_name) == len(heard) == len(rollouts)
    for rollout in rollouts:
        other = by_name[rollout.prompt_id, rollout.sample]
        assert other.tokens.tolist() == rollout.tokens.tolist()
        assert other.logprobs.tolist() == rollout.logprobs.tolist()
        assert (other.finish_reason, other.seed, other.version) == (rollout.finish_reason, rollout.seed, rollout.version)
