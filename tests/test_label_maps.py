"""Where label maps go, and which are made."""

import pytest

from kvseg_monai.errors import InputError
from kvseg_monai.label_maps import still_to_do


def test_label_maps_that_are_there_are_not_made_again(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    cases = [{"image": str(source / name)} for name in ("a.nii", "b.nii.gz")]
    (out / "a.nii.gz").touch()
    assert still_to_do(cases, out) == cases[1:]
    for overwrite, left in (("false", 1), ("true", 2), (True, 2)):  # on MONAI's command line a switch is text
        assert len(still_to_do(cases, out, overwrite=overwrite)) == left
    with pytest.raises(InputError, match="--overwrite is 'maybe'; it must be true or false"):
        still_to_do(cases, out, overwrite="maybe")
    (out / "b.nii.gz").touch()
    with pytest.raises(InputError, match="all 2 volumes have a label map in"):
        still_to_do(cases, out)
    with pytest.raises(InputError, match="is the folder of the input"):
        still_to_do(cases, source)
