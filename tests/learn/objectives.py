"""The objective of a batch, for the tests of this folder."""

from polaris.learn.objective import policy_objective


def objective(batch, behaviour, entropy, config, total):
    return policy_objective(
        batch.logprob, behaviour, batch.advantage, entropy, batch.sequence_lengths, config, total, proximal_logprob=batch.old_logprob
    )
