import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from polaris.rollout.decoding import draw, truncate, uniforms
from polaris.rollout.types import Sampling


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (-1, 0.8), (40, 0.5), (1, 1.0), (-1, 1e-6), (500, 0.9), (-1, 1.0)])
def test_truncation_is_that_of_transformers(top_k, top_p):
    logits = 3 * torch.randn(50, 211, generator=torch.Generator().manual_seed(0))
    expected = TopKLogitsWarper(top_k)(None, logits) if top_k > 0 else logits
    expected = TopPLogitsWarper(top_p)(None, expected) if top_p < 1 else expected
    torch.testing.assert_close(truncate(logits, top_k, top_p), expected)


def test_draw_inverts_the_cumulative_distribution():
    probabilities = torch.tensor([0.2, 0.0, 0.5, 0.3, 0.0])
    uniform = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs = draw((probabilities.log() * 1.7).expand(6, -1), uniform, Sampling(temperature=1.7, max_tokens=1))
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]
    torch.testing.assert_close(logprobs, probabilities[tokens].log())


def test_longer_draw_begins_with_the_shorter():
    assert uniforms(5, 100)[:10].tolist() == uniforms(5, 10).tolist()
    assert uniforms(5, 10).tolist() != uniforms(6, 10).tolist()
    assert len(uniforms(2**63 - 1, 3)) == 3
