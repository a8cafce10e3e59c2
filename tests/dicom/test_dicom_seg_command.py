"""DICOM SEG by the command and in the bundles' inference: what is written, what is reported, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import series_uid, write_series
from oracle_inference import SEG_OVERLAY, oracle_inference
from seg_objects import AXIAL, SHAPE, image, labels, oblique, read_back, validate
from support import BUNDLES, ROOT, make_volume, names_in

from kvseg_monai.dicom.listing import list_volumes, volume_at
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.transforms.dicom_seg import main


def save_map(folder: Path, label_map: np.ndarray, affine: np.ndarray = AXIAL, name: str = "map.nii.gz") -> Path:
    nib.save(nib.Nifti1Image(label_map, affine), folder / name)
    return folder / name


def command(tmp_path: Path, *more: str, prediction: Path) -> list[str]:
    line = ["--prediction", str(prediction), "--series", str(tmp_path / "in"), "--target", str(tmp_path / "out.dcm")]
    return [*line, *more]


def test_the_command_writes_and_reports(tmp_path, capsys):
    """The label map's name chooses among the series of a folder; the bundle says who segmented."""
    write_series(tmp_path / "in" / "a", image(), AXIAL)
    write_series(tmp_path / "in" / "b", image(), oblique(), SeriesInstanceUID=series_uid("b"), SeriesNumber=9)
    chosen = volume_at(tmp_path / "in" / "b")
    prediction = save_map(tmp_path, labels(), oblique(), f"{chosen.name}.nii.gz")
    bundle = ROOT / "bundles" / BUNDLES[1]
    main(command(tmp_path, "--bundle", str(bundle), prediction=prediction))
    reported = capsys.readouterr().out
    assert reported.startswith(
        f"wrote {tmp_path}/out.dcm: {chosen.name}, 9 x 7 x 5 voxels of 1.5 x 1.25 x 3 mm\n  1 large_bowel (SCT 14742008"
    )
    made = pydicom.dcmread(tmp_path / "out.dcm")
    np.testing.assert_array_equal(read_back(made, tmp_path / "in" / "b", SHAPE), labels())
    name = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName
    assert name == json.loads((bundle / "configs" / "metadata.json").read_text())["name"]
    with pytest.raises(InputError, match=r"out\.dcm exists; give another --target, or --overwrite to replace it"):
        main(command(tmp_path, prediction=prediction))
    main(command(tmp_path, "--overwrite", prediction=prediction))
    assert pydicom.dcmread(tmp_path / "out.dcm").SOPInstanceUID != made.SOPInstanceUID
    before = list_volumes(tmp_path / "in")
    shutil.copy(tmp_path / "out.dcm", tmp_path / "in" / "a")  # what is written is nothing to segment
    assert list_volumes(tmp_path / "in") == before


MISTAKES = {
    "a shifted map": (
        (labels(), AXIAL + np.eye(4, k=3)),
        (),
        "is not on the grid of series004-.*, 9 x 7 x 5 voxels of 1.5 x",
    ),
    "another size": ((labels((9, 7, 4)), AXIAL), (), "9 x 7 x 4 voxels of 1.5 x 1.25 x 3 mm, is not on the grid"),
    "another spacing": ((labels(), AXIAL * [1, 1, 1.1, 1]), (), "is not on the grid"),
    "a flat map": ((labels()[..., 0], AXIAL), (), "9 x 7 voxels of .* is not on the grid"),
    "a turned map": ((labels(), oblique(3)), (), "is not on the grid"),
    "undeclared values": ((labels() + np.uint8(1), AXIAL), (), r"holds the values \[4\]; only 0 to 3 are declared"),
    "fractions": ((labels() / np.float32(2), AXIAL), (), r"holds the values \[0.5, 1.5\]; only 0 to 3 are declared"),
    "too few names": ((labels(), AXIAL), ("--labels", "a", "b"), r"holds the values \[3\]; only 0 to 2 .*\(a, b\)"),
    "no bundle": ((labels(), AXIAL), ("--bundle", "nowhere"), "there is no bundle nowhere; give its folder"),
    "no series": ((labels(), AXIAL), ("--series", "nowhere"), "nowhere does not exist"),
    "a CT series": (
        (labels(), AXIAL),
        ("--series", "ct"),
        r"ct holds no MR volume .*: modality CT, only MR is",
    ),
    "a broken map": ((labels(), AXIAL), ("--prediction", "broken.nii.gz"), "broken.nii.gz is no readable NIfTI file"),
    "a broken series": (
        (labels(), AXIAL),
        ("--series", "broken"),
        r"broken holds no MR volume \(IM0000: holds no image",
    ),
    "slices missing": ((labels(), AXIAL), ("--series", "gap"), "gap holds no MR volume .*slices are missing"),
    "several series": (
        (labels(), AXIAL),
        ("--series", ".", "--target", "../apart.dcm"),
        "holds 3 MR volumes .*give .*/series004-.* or anot",
    ),
    "an input": ((labels(), AXIAL), ("--target", "in/IM0002", "--overwrite"), "in/IM0002 is there and was not"),
    "the map": ((labels(), AXIAL), ("--target", "map.nii.gz", "--overwrite"), "map.nii.gz is there and was not"),
    "no map": ((labels(), AXIAL), ("--prediction", "nowhere.nii"), "nowhere.nii is missing"),
    "a folder": ((labels(), AXIAL), ("--target", ".", "--overwrite"), "is a folder; give the name of a file"),
    "below the series": ((labels(), AXIAL), ("--target", "in/new/seg.dcm"), "in/new/seg.dcm lies in --series"),
    "a link into the series": ((labels(), AXIAL), ("--target", "link/seg.dcm"), "link/seg.dcm lies in --series"),
    "somebody's file": ((labels(), AXIAL), ("--target", "broken.nii.gz", "--overwrite"), "was not written by kvseg_mo"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """The series ``in``, and others that no label map of ours belongs to."""
    folder = tmp_path_factory.mktemp("folders")
    write_series(folder / "in", image(), AXIAL)
    write_series(folder / "ct", image(), AXIAL, Modality="CT", SeriesInstanceUID=series_uid("ct"))
    write_series(folder / "other" / "a", image(), oblique(), SeriesInstanceUID=series_uid("other"))
    write_series(folder / "other" / "b", image(), oblique(), SeriesInstanceUID=series_uid("b"))
    write_series(folder / "gap", image(), AXIAL, SeriesInstanceUID=series_uid("gap"))[2].unlink()
    whole = (folder / "in" / "IM0000").read_bytes()
    (folder / "broken").mkdir()
    (folder / "broken" / "IM0000").write_bytes(whole[:700])
    (folder / "broken.nii.gz").write_bytes(b"no map")
    (folder / "link").symlink_to("in")
    return folder


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_reported_and_nothing_is_written(name, folders, tmp_path, monkeypatch):
    saved, options, sentence = MISTAKES[name]
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True, symlinks=True)
    prediction = save_map(tmp_path, *saved)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence) as reported:
        main(command(tmp_path, *options, prediction=prediction))
    assert "\n" not in str(reported.value)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_name_of_a_label_map_says_of_which_volume_it_is(tmp_path):
    """Two patients on one grid, as one protocol makes them: only the name distinguishes them."""
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, image(), AXIAL, SeriesInstanceUID=series_uid(name))
    one, two = (volume_at(tmp_path / "in" / name) for name in ("a", "b"))
    prediction = save_map(tmp_path, labels(), name=f"{one.name}.nii.gz")
    with pytest.raises(InputError, match=rf"in/b/{one.name} does not exist, .* \(the label map is named after"):
        main(command(tmp_path, "--series", str(tmp_path / "in" / "b"), prediction=prediction))
    with pytest.raises(InputError, match=r"is named after another volume than .*; correct one of the two"):
        main(command(tmp_path, "--series", str(tmp_path / "in" / two.name), prediction=prediction))
    assert not (tmp_path / "out.dcm").exists()
    inside = ["--series", str(tmp_path / "in" / one.name), "--target", str(tmp_path / "in" / "out.dcm")]
    with pytest.raises(InputError, match=r"in/out\.dcm lies in --series .*/in; what is written must lie apart"):
        main(command(tmp_path, *inside, prediction=prediction))
    for series in ("in", "in/a", f"in/{one.name}"):
        main(command(tmp_path, "--overwrite", "--series", str(tmp_path / series), prediction=prediction))
        made = pydicom.dcmread(tmp_path / "out.dcm")
        assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == one.uid


def test_the_command_line_ends_with_a_sentence_and_exit_code_2(tmp_path):
    write_series(tmp_path / "in", image((9, 7, 1)), AXIAL)
    line = [sys.executable, "-m", "kvseg_monai.dicom_seg", *command(tmp_path, prediction=tmp_path / "map.nii.gz")]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {tmp_path}/map.nii.gz is missing; restore it or correct the path\n"


def test_inference_goes_from_a_dicom_folder_to_dicom_seg(tmp_path):
    """The same label map as without the overlay; done series are not made again, NIfTI files are refused."""
    write_series(tmp_path / "in" / "a", make_volume(0)[0], oblique(5))
    source = tmp_path / "in"
    oracle_inference(source, tmp_path / "maps").run()
    oracle_inference(source, tmp_path / "segs", SEG_OVERLAY).run()
    (label_map,), (written,) = (list((tmp_path / name).glob("[!.]*")) for name in ("maps", "segs"))
    assert written.name == label_map.name.replace(".nii.gz", ".dcm") == f"{volume_at(tmp_path / 'in' / 'a').name}.dcm"
    expected = np.asarray(nib.load(label_map).dataobj)
    np.testing.assert_array_equal(read_back(pydicom.dcmread(written), tmp_path / "in" / "a", expected.shape), expected)
    validate(written)
    save_map(tmp_path / "in", make_volume(0)[0], name="scan.nii.gz")
    with pytest.raises(RuntimeError, match="bad_cases") as error:
        oracle_inference(source, tmp_path / "segs", SEG_OVERLAY).run()
    assert "scan.nii.gz is no DICOM series" in str(find_input_error(error.value))
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        oracle_inference(source, tmp_path / "segs", SEG_OVERLAY).run()
    assert names_in(tmp_path / "segs") == [written.name]
