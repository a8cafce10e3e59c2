import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common.datalist import SECTIONS, split_patients, write_datalist
from kvseg_monai.errors import InputError


def names(count):
    return [f"case{number}" for number in range(count)]


@given(st.integers(1, 60), st.integers(0, 9), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_every_section_gets_its_share(count, seed, validation, test):
    split = split_patients(names(count), validation_fraction=validation, test_fraction=test, seed=seed)
    sizes = {section: list(split.values()).count(section) for section in SECTIONS}
    assert sum(sizes.values()) == len(split) == count
    assert sizes["training"] >= 1
    assert (sizes["validation"] >= 1) == (count >= 2)
    assert (sizes["test"] >= 1) == (count >= 3)


def test_shares_of_many_patients():
    split = list(split_patients(names(85), validation_fraction=0.2, test_fraction=0.1).values())
    assert [split.count(section) for section in SECTIONS] == [59, 17, 9]


def test_order_and_repetition_do_not_matter_but_the_seed_does():
    one = split_patients(names(30), seed=1)
    assert one == split_patients([*reversed(names(30)), "case3"], seed=1)
    assert one != split_patients(names(30), seed=2)


def test_a_fraction_of_zero_leaves_the_section_empty():
    split = split_patients(names(10), validation_fraction=0, test_fraction=0)
    assert set(split.values()) == {"training"}


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (-0.1, 0.1, "--validation-fraction is -0.1; it must be at least 0"),
        (0.1, 1.0, "--test-fraction is 1; it must be at least 0 and below 1"),
        (float("nan"), 0.1, "--validation-fraction is nan"),
        (0.6, 0.4, "add up to 1, which leaves nothing to train on"),
    ],
)
def test_wrong_fractions(validation, test, message):
    with pytest.raises(InputError, match=message):
        split_patients(names(5), validation_fraction=validation, test_fraction=test)


def test_written_file(tmp_path):
    items = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "patient": name} for name in "ba"]
    sections = {"a": "training", "b": "test"}
    content = write_datalist(tmp_path / "d.json", items, name="n", labels={1: "x", 0: "background"}, sections=sections)
    assert json.loads((tmp_path / "d.json").read_text()) == content
    assert content["labels"] == {"0": "background", "1": "x"}
    assert [content[section] for section in SECTIONS] == [[items[1]], [], [items[0]]]
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["d.json"]
