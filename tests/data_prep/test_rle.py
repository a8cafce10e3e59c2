from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_prep.uw_madison.rle import decode, encode, parse_runs
from kvseg_monai.errors import InputError

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


def slow_encode(mask: np.ndarray) -> str:
    """One pixel after the other, as the format is described."""
    runs: list[list[int]] = []
    for place, inside in enumerate(mask.ravel().tolist(), start=1):
        if inside and runs and sum(runs[-1]) == place:
            runs[-1][1] += 1
        elif inside:
            runs.append([place, 1])
    return " ".join(f"{start} {length}" for start, length in runs)


@settings(max_examples=150, deadline=None)
@given(masks)
def test_encode_equals_the_slow_one_and_decode_inverts_it(mask):
    text = encode(mask)
    assert text == slow_encode(mask)
    assert np.array_equal(decode(text, mask.shape), mask)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 12), st.integers(-2, 12)), max_size=4))
def test_a_text_is_drawn_right_or_refused(runs):
    pixels = [place for start, length in runs for place in range(start, start + length)]
    ascending = all(one < two for one, two in pairwise(pixels))
    valid = ascending and all(1 <= place <= 12 for place in pixels) and all(length > 0 for _, length in runs)
    text = " ".join(f"{start} {length}" for start, length in runs)
    if valid:
        assert np.flatnonzero(decode(text, (3, 4))).tolist() == [place - 1 for place in pixels]
    else:
        with pytest.raises(InputError, match=r"does not fit|overlap or are out of order"):
            decode(text, (3, 4))


def test_rows_come_before_columns():
    assert np.argwhere(decode("2 1 5 2", (2, 4))).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_runs_that_touch_are_one_piece():
    assert decode("1 2 3 2", (1, 5)).tolist() == [[True] * 4 + [False]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 numbers; it must hold pairs"),
        ("one 2", "holds 'one'; only whole numbers"),
        ("1.0 2", r"holds '1\.0'; only whole numbers"),
        ("1 99999999999999999999", "only whole numbers"),
        ("0 3", "'0 3' does not fit the image"),
        ("3 0", "'3 0' does not fit the image"),
        ("-3 2", "'-3 2' does not fit the image"),
        ("10 4", "'10 4' does not fit the image.*ends at pixel 12"),
        ("1 5 4 2", "'1 5' and '4 2' overlap"),
        ("6 2 1 2", "'6 2' and '1 2' overlap or are out of order"),
    ],
)
def test_wrong_texts(text, message):
    with pytest.raises(InputError, match=message):
        parse_runs(text, 12)


def test_a_volume_is_not_a_mask():
    with pytest.raises(InputError, match="3 axes; it must be one slice"):
        encode(np.zeros((2, 2, 2)))
