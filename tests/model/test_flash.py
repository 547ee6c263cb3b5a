"""The choice of FlashAttention, with implementations planted in torch's registry; on a GPU, those that are installed."""

import pytest
import torch
from torch.nn.attention import _registry, activate_flash_attention_impl, current_flash_attention_impl, restore_flash_attention_impl

from polaris.model import attention
from polaris.model.flash import BUILT_IN, choose_flash

CPU, HEADS = torch.device("cpu"), (4, 2, 16)


class Planted:
    """An implementation whose results are `wrong` by a factor while it is active."""

    def __init__(self, wrong=1.0, error=None):
        self.wrong, self.error, self.active = wrong, error, False

    def __call__(self):
        if self.error is not None:
            raise self.error
        self.active = True
        return self

    def remove(self):
        self.active = False


@pytest.fixture
def chosen(monkeypatch):
    """Chooses among planted implementations, of which the active one computes."""

    def choose(**planted):
        monkeypatch.setattr(_registry, "_FLASH_ATTENTION_IMPLS", planted)

        def attend(*arguments):
            return attention._grouped_attention(*arguments) * next((one.wrong for one in planted.values() if one.active), 1.0)

        return choose_flash(CPU, torch.float32, HEADS, attend)

    yield choose
    restore_flash_attention_impl(_raise_warn=False)


def test_the_newest_that_agrees_is_taken(chosen):
    assert chosen(FA3=Planted(), FA4=Planted(1.01)) == ("FlashAttention 4", "")
    assert current_flash_attention_impl() == "FA4"


def test_one_that_computes_something_else_is_left(chosen):
    wrong = Planted(1.05)
    found, why = chosen(FA3=Planted(), FA4=wrong)
    assert (found, why) == ("FlashAttention 3", "FA4: its results are 5.0% from torch's own")
    assert not wrong.active


def test_without_one_that_works_torch_computes_and_says_why(chosen):
    assert chosen(FA4=Planted(error=ImportError("No module named 'flash_attn'"))) == (
        BUILT_IN,
        "FA4: No module named 'flash_attn'",
    )
    assert current_flash_attention_impl() is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["FA3", "FA4"])
def test_an_installed_implementation_computes_what_torchs_own_does(name):
    try:
        activate_flash_attention_impl(name)
    except ImportError as error:
        pytest.skip(str(error))
    restore_flash_attention_impl()
    found, why = choose_flash(torch.device("cuda"), torch.bfloat16, (32, 8, 128))
    restore_flash_attention_impl(_raise_warn=False)
    assert found != BUILT_IN, why
