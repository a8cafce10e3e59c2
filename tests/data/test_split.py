"""One function deals patients to sections: shares, seeds, and the splits of earlier versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvseg_monai.data.datalist import SECTIONS
from kvseg_monai.data.split import HELD_OUT, PREPARED, split_patients


def names(count):
    return [f"case{number}" for number in range(count)]


def sizes(split):
    return [list(split.values()).count(section) for section in SECTIONS]


@pytest.mark.parametrize("draw", [PREPARED, HELD_OUT])
@given(count=st.integers(1, 60), seed=st.integers(0, 9), validation=st.floats(0.01, 0.49), test=st.floats(0.01, 0.49))
def test_every_section_gets_its_share(draw, count, seed, validation, test):
    split = split_patients(names(count), {"validation": validation, "test": test}, seed=seed, draw=draw)
    training, validated, tested = sizes(split)
    assert training + validated + tested == len(split) == count
    assert training >= 1
    assert (validated >= 1) == (count >= 2)
    assert (tested >= 1) == (count >= 3)


def test_shares_of_many_patients():
    assert sizes(split_patients(names(85), {"validation": 0.2, "test": 0.1})) == [59, 17, 9]


@pytest.mark.parametrize("draw", [PREPARED, HELD_OUT])
def test_order_and_repetition_do_not_matter_but_the_seed_does(draw):
    fractions = {"validation": 0.2, "test": 0.1}
    one = split_patients(names(30), fractions, seed=1, draw=draw)
    assert one == split_patients([*reversed(names(30)), "case3"], fractions, seed=1, draw=draw)
    assert one != split_patients(names(30), fractions, seed=2, draw=draw)


def test_a_fraction_of_zero_leaves_a_section_of_a_prepared_dataset_empty():
    assert set(split_patients(names(10), {"validation": 0, "test": 0}).values()) == {"training"}


@pytest.mark.parametrize(
    ("draw", "fractions", "expected"),
    [
        (PREPARED, {"validation": 0.2, "test": 0.1}, {"case3": "test", "case2": "validation", "case6": "validation"}),
        (HELD_OUT, {"validation": 0.25}, {"case6": "validation", "case8": "validation"}),
    ],
)
def test_the_splits_of_version_0_1_0_are_drawn_again(draw, fractions, expected):
    """So weights and the data that they have not seen stay together. Of 10 patients, 0.25 is 2 when held out."""
    split = split_patients(names(10), fractions, seed=1, draw=draw)
    assert {name: section for name, section in split.items() if section != "training"} == expected
