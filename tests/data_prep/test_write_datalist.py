import json

import pytest

from data_prep.common.datalist import check_fractions, write_datalist
from kvseg_monai.data.datalist import SECTIONS
from kvseg_monai.errors import InputError


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
        check_fractions(validation, test)


def test_written_file(tmp_path):
    items = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "patient": name} for name in "ba"]
    sections = {"a": "training", "b": "test"}
    content = write_datalist(tmp_path / "d.json", items, name="n", labels={1: "x", 0: "background"}, sections=sections)
    assert json.loads((tmp_path / "d.json").read_text()) == content
    assert content["labels"] == {"0": "background", "1": "x"}
    assert [content[section] for section in SECTIONS] == [[items[1]], [], [items[0]]]
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["d.json"]
