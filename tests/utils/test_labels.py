"""What labels mean: DICOM's own codes, and further ones from a file."""

import pytest
import yaml
from pydicom.sr.codedict import codes
from support import ROOT

from data_prep.uw_madison.table import CLASSES
from kvseg_monai.errors import InputError
from kvseg_monai.utils.labels import ANATOMICAL_STRUCTURE, CODES, read_codes


def test_the_codes_are_dicoms_own():
    """Of every pydicom the same: that of MONAI Label's environment has another anatomical structure."""
    assert codes.cid7150.AnatomicalStructure.value in (ANATOMICAL_STRUCTURE.value, "123037004")
    organs = {
        "large_bowel": ("14742008", "Large intestine"),
        "small_bowel": ("30315005", "Small intestine"),
        "stomach": ("69695003", "Stomach"),
    }
    assert {name: (code.value, code.meaning) for name, code in CODES.items()} == organs
    assert {code.scheme_designator for code in (*CODES.values(), ANATOMICAL_STRUCTURE)} == {"SCT"}


def test_further_codes_are_read_from_a_file(tmp_path):
    (tmp_path / "codes.json").write_text('{"liver": {"value": "10200004", "meaning": "Liver"}}')
    assert read_codes(tmp_path / "codes.json") == {"liver": codes.cid7151.Liver}
    assert yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())["labels"][1:] == list(CODES) == list(CLASSES)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {}}', '{"a": {"value": "1", "meaning": ""}}', '{"a": 1}'])
def test_wrong_codes_are_reported(content, tmp_path):
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(InputError, match=r"codes.json .*must hold an object like"):
        read_codes(tmp_path / "codes.json")
