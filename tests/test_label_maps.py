"""Where label maps go, and which are made."""

import pytest

from kvseg_monai.errors import InputError
from kvseg_monai.files import write_text
from kvseg_monai.label_maps import all_to_do, still_to_do


def test_label_maps_that_are_there_are_not_made_again(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    cases = [{"image": str(source / name)} for name in ("a.nii", "b.nii.gz")]
    write_text(out / "a.nii.gz", "")
    assert still_to_do(cases, out) == cases[1:]
    for overwrite, left in (("false", 1), ("true", 2), (True, 2)):  # on MONAI's command line a switch is text
        assert len(still_to_do(cases, out, overwrite=overwrite)) == left
    with pytest.raises(InputError, match="--overwrite is 'yes'; it must be true or false"):
        still_to_do(cases, out, overwrite="yes")
    (out / "b.nii.gz").touch()
    with pytest.raises(InputError, match="all 2 volumes have a label map in"):
        still_to_do(cases, out)
    with pytest.raises(InputError, match="is the folder of the input"):
        still_to_do(cases, source)


def test_a_label_map_that_a_person_corrected_is_never_made_again(tmp_path):
    cases = [{"image": str(tmp_path / "in" / name)} for name in ("a.nii", "b.nii")]
    write_text(tmp_path / "a.nii.gz", "ours")
    for content in ("corrected by hand", "by another program"):
        (tmp_path / "b.nii.gz").write_text(content)
        for prepare in (lambda: still_to_do(cases, tmp_path, overwrite=True), lambda: all_to_do(cases, tmp_path)):
            with pytest.raises(InputError, match=r"b\.nii\.gz is there and was not written by kvseg_monai, or was"):
                prepare()
    (tmp_path / "b.nii.gz").unlink()
    assert still_to_do(cases, tmp_path, overwrite=True) == all_to_do(cases, tmp_path) == cases


def test_a_scored_label_map_never_takes_the_place_of_a_reference(tmp_path):
    """Which may well be a file of ours, prepared, and lie elsewhere than the datalist."""
    case = {"image": str(tmp_path / "images" / "a.nii.gz"), "label": str(tmp_path / "labels" / "a.nii.gz")}
    write_text(case["label"], "ours")
    (tmp_path / "link").symlink_to(tmp_path / "labels")
    for folder in ("labels", "link"):
        with pytest.raises(InputError, match="is an input, which is never replaced; choose another --prediction_dir"):
            all_to_do([case], tmp_path / folder)
    assert all_to_do([case], tmp_path / "elsewhere") == [case]
