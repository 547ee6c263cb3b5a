"""What is said below the table of a probe, for one temperature and for several."""

import pytest

from polaris.observe.temperature_words import reason
from polaris.recipe.temperature_table import table


def said(kept, *, initial=0.6, tolerance=0.01, prompts_to_tell=0):
    readings = [
        {"temperature": t, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
        | {"words": 0.5, "tokens": 0.5, "length_mean": 100.0, "clip_ratio": 0.0, "samples": 8, "per_prompt": [0.5] * 60}
        for t in (0.6, 0.8, 1.0)
    ]
    zones = {"robust_from": 0.6, "robust_to": 1.0, "exploration_to": 1.0, "collapse_from": None, "initial": initial}
    zones |= {"kept": kept, "prompts_to_tell": prompts_to_tell}
    lines = table(
        {
            "source": "probe",
            "readings": readings,
            "zones": zones,
            "temperature": initial,
            "settings": {"prompts": 60, "tolerance": tolerance},
        }
    )
    assert lines[0].startswith("kept: the probability")
    return lines[2 + len(readings) :]


def test_a_share_that_no_response_is_long_enough_for_is_no_number():
    reading = {"temperature": 0.5, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "samples": 8, "per_prompt": [0.5] * 60}
    reading |= {"words": 0.0, "tokens": 0.5, "length_mean": 100.0, "clip_ratio": 0.0}
    _, row, _ = table({"source": "fixed", "temperature": 0.5, "readings": [reading]})
    assert row.split()[4:6] == ["-", "0.500"]


def test_only_the_reason_where_all_is_decided():
    assert said([1.0, 0.98, 0.02], initial=0.8) == [
        "0.8 is the most diverse temperature that surely (98%) stays within 3% of the best accuracy; 1 stays so with 2%"
    ]


@pytest.mark.parametrize(
    ("kept", "subject"),
    [
        ([1.0, 1.0, 0.5], "temperature 1 stays"),
        ([1.0, 0.9, 0.5], "temperatures 0.8 and 1 stay"),
        ([0.979, 0.9, 0.5], "temperatures 0.6, 0.8 and 1 stay"),
    ],
)
def test_which_temperatures_the_prompts_cannot_tell(kept, subject):
    doubt = f"60 prompts cannot tell whether {subject} within 3% of the best accuracy"
    few, many = said(kept, prompts_to_tell=480)[-1], said(kept, prompts_to_tell=None)[-1]
    assert few == f"{doubt}; about 480 could, if they have the same accuracies (probe.prompts)"
    assert many == f"{doubt}; 64 times as many could not either (probe.prompts)"


def test_a_choice_that_is_not_sure_is_said_with_its_chance_rounded_down():
    assert said([0.979, 0.9, 0.5], tolerance=0.05)[1] == (
        "no temperature is sure (98%) to stay within 5% of the best accuracy; 0.6 is chosen as the most probable one (97%)"
    )


@pytest.mark.parametrize(
    ("temperature", "stopped", "said"),
    [
        (0.5, "diversity restored", "0.5 was found going up from 0.4, to restore the diversity of 0.600 with which"),
        (0.4, "diversity restored", "0.4 stays, to restore the diversity of 0.600 with which the stage before began: resp"),
        (0.4, "accuracy cannot be told from 0", "0.4 stays, to restore the diversity of 0.600"),
    ],
)
def test_a_retuned_temperature_that_did_not_move_stays(temperature, stopped, said):
    result = {"temperature": temperature, "source": "retune", "target": 0.6, "stopped": stopped, "readings": [{"temperature": 0.4}]}
    assert reason(result).startswith(said)
