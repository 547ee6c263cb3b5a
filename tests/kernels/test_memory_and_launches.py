"""Peak memory of the operations at a GPU's sizes, and how often they launch something, counted without a GPU."""

import pytest
import torch

from benchmarks.kernels.memory import SIZE, VOCABULARY, trace, traced

T, CHUNK = 40_960, 3328
FOUR_BYTES, TWO_BYTES = 4, 2
STATISTICS = ("forward_kernel", "merge_kernel", "target_logit_kernel", "finish_kernel")


def large(rows=1000):
    return torch.empty(rows, 3000, device="meta"), rows * 3000 * FOUR_BYTES


def bytes_at_peak(trace, *without):
    return sum(trace.peak([trace.key(tensor) for tensor in without]).values())


def test_a_sum_takes_its_result():
    a, size = large()
    with traced(a) as found:
        total = a + a
    assert bytes_at_peak(found) == size
    assert bytes_at_peak(found, total) == 0
    assert found.others == {"add": 1}


def test_of_chained_temporaries_two_are_alive():
    a, size = large()
    with traced(a) as found:
        total = ((a + 1) * 2 - 3).exp()
    assert bytes_at_peak(found) == 2 * size
    assert bytes_at_peak(found, total) == 2 * size  # before the last step
    assert found.others == {"add": 1, "mul": 1, "sub": 1, "exp": 1}


def test_what_is_done_in_place_or_is_a_view_takes_nothing():
    a, _ = large()
    with traced(a) as found:
        a.add_(1).view(-1)[5:].mul_(a.flatten()[5:])
        torch.exp(a, out=a)
    assert bytes_at_peak(found) == 0
    assert found.others == {"add_": 1, "mul_": 1, "exp": 1}


def test_a_view_keeps_its_tensor_alive():
    a, size = large()
    with traced(a) as found:
        first = (a + 1)[:1]
        second = a + 2
        del first
        third = (a + 3)[0]
        del second, third
        a + 4
    assert bytes_at_peak(found) == 2 * size
    assert sum(change for _, change in found.changes) == 0


def test_small_tensors_hold_the_values_that_choose_rows():
    a, _ = large(2000)
    mask = torch.arange(2000) % 4 == 0
    with traced(a, mask) as found:
        rows = mask.nonzero().squeeze(1)
        taken = a[rows]
        total = a.new_zeros(2000).index_add(0, rows, a[rows, 0])
    assert taken.shape == (500, 3000)
    assert total.sum() == 500  # what was not worked out is 1
    assert bytes_at_peak(found) == pytest.approx(500 * 3000 * FOUR_BYTES, rel=0.02)


def test_a_product_takes_its_float32_sum():
    a = torch.empty(2000, 600, dtype=torch.bfloat16, device="meta")
    with traced(a) as found:
        torch.mm(a, a.T, out_dtype=torch.float32)
    assert bytes_at_peak(found) == 2000 * 2000 * FOUR_BYTES
    assert found.products == {"mm": 1}


def test_peak_of_linear_logprob():
    """A slab of logit gradients, a copy of the rows that learn, the sum in float32 of their gradient, the head's gradient."""
    found = trace("linear_logprob", T)
    slab = T * 16_384 * TWO_BYTES
    assert found.total == pytest.approx(slab + T * SIZE * (TWO_BYTES + FOUR_BYTES) + VOCABULARY * SIZE * TWO_BYTES, rel=0.005)


def test_a_gradient_that_is_added_takes_no_memory():
    """Products add to the caller's tensor; the loss keeps its sum, which has to wait for the backward."""
    found = trace("linear_logprob", T, added=True)
    assert found.total == pytest.approx(T * 16_384 * TWO_BYTES + T * SIZE * (TWO_BYTES + FOUR_BYTES), rel=0.005)
    assert found.backward()["products"] == {"addmm": 20}
    assert trace("linear_policy_loss", T, added=True).total == pytest.approx(trace("linear_policy_loss", T).total, rel=1e-4)


@pytest.mark.parametrize("rows", [T, 98_304])
def test_peak_of_linear_policy_loss(rows):
    """A chunk's exponentials, hidden states and products, the sum in float32 of the head's gradient, the other gradient."""
    found = trace("linear_policy_loss", rows)
    exponentials, head, hidden = CHUNK * VOCABULARY * TWO_BYTES, VOCABULARY * SIZE * FOUR_BYTES, rows * SIZE * TWO_BYTES
    of_chunk = CHUNK * SIZE * 2 * (TWO_BYTES + FOUR_BYTES)
    assert found.total == pytest.approx(exponentials + head + hidden + of_chunk, rel=0.005)
    assert sum(found.gradients.values()) == hidden + head // 2
    assert found.total - sum(found.gradients.values()) < 2.6e9


def test_peak_of_operations_without_a_head():
    """One gradient, and a few numbers per row."""
    for operation, gradient in (("logprob_from_logits", T * VOCABULARY * TWO_BYTES), ("policy_loss", T * FOUR_BYTES)):
        found = trace(operation, T)
        assert sum(found.gradients.values()) == gradient
        assert found.total - gradient < 8 * T * FOUR_BYTES


def test_launches_of_linear_logprob():
    """Ten slabs of 16,384 columns."""
    found = trace("linear_logprob", T)
    forward, backward = found.forward, found.backward()
    assert forward["Triton"] == dict.fromkeys(STATISTICS, 1)
    assert not forward["products"]
    assert forward["others"].total() <= 2
    assert backward["Triton"] == {"gradient_kernel": 10, "target_kernel": 10}
    assert backward["products"] == {"addmm": 10, "mm": 10}
    assert backward["others"].total() <= 32


def test_launches_of_linear_policy_loss():
    """Thirteen chunks of 3,328 rows, and the loss of all rows once more."""
    found = trace("linear_policy_loss", T)
    chunks = -(-T // CHUNK)
    of_chunk = dict.fromkeys([*STATISTICS, "target_kernel", "zero_rows_kernel"], chunks)
    assert found.forward["Triton"] == of_chunk | {"loss_kernel": chunks + 1}
    assert found.forward["products"] == {"mm": chunks, "addmm": chunks}
    assert found.forward["others"].total() <= 40 * chunks
    backward = found.backward()
    assert not backward["Triton"]
    assert not backward["products"]
    assert backward["others"].total() <= 8
