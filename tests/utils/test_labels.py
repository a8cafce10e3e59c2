"""What labels mean: DICOM's own codes, and further ones from a file."""

import pytest
import yaml
from pydicom.sr.codedict import codes
from support import ROOT

from data_prep.uw_madison.table import CLASSES
from kvseg_monai.errors import InputError
from kvseg_monai.utils.labels import ANATOMICAL_STRUCTURE, CODES, read_codes


def test_the_codes_are_dicoms_own():
    assert ANATOMICAL_STRUCTURE.value == codes.cid7150.AnatomicalStructure.value
    for name, keyword in (("large_bowel", "LargeIntestine"), ("small_bowel", "SmallIntestine"), ("stomach", "Stomach")):
        code = getattr(codes.cid7151, keyword)
        assert (CODES[name].value, CODES[name].meaning) == (code.value, code.meaning)
        assert CODES[name].scheme == code.scheme_designator == "SCT"
    assert yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())["labels"][1:] == list(CODES) == list(CLASSES)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {}}', '{"a": {"value": "1", "meaning": ""}}', '{"a": 1}'])
def test_wrong_codes_are_reported(content, tmp_path):
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(InputError, match=r"codes.json .*must hold an object like"):
        read_codes(tmp_path / "codes.json")
