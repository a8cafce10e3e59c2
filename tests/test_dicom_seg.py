"""DICOM SEG: read back voxel by voxel, valid for dciodvfy, with codes, references and absent organs as they are."""

import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml
from dicom_files import PATIENT, series_uid, write_enhanced, write_series
from monai.bundle import create_workflow
from nibabel.orientations import apply_orientation, inv_ornt_aff
from oracles import IntensityOracle
from pydicom.sr.codedict import codes
from support import BUNDLES, ROOT, config, make_volume

from data_prep.uwm_table import CLASSES
from kvseg_monai.dicom import segmentation
from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.dicom.segmentation import ABSENT
from kvseg_monai.dicom_seg import main, write_dicom_seg
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.labels import ANATOMICAL_STRUCTURE, CODES, COLOURS, read_codes

AXIAL = np.diag([-1.5, -1.25, 3.0, 1.0])
SHAPE = (9, 7, 5)
ALL_TURNS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oblique(degrees: float = 17) -> np.ndarray:
    """AXIAL turned about two axes and moved."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AXIAL[:3, :3]
    return np.block([[affine, np.array([[12.5], [-33.25], [7.125]])], [np.zeros(3), 1]])


def labels(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random classes 0, 1 and 3 in all slices but the last; class 2 is absent."""
    made = np.random.default_rng(seed).choice(np.array([0, 0, 1, 3], np.uint8), shape)
    if shape[2] > 1:
        made[..., -1] = 0
    return made


def image(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 900, shape).astype(np.int16)


def write(folder: Path, label_map: np.ndarray, affine: np.ndarray, **options) -> tuple[pydicom.Dataset, str]:
    """Write ``label_map`` as the SEG of the one series in ``folder``; return it and the summary."""
    target = folder.parent / "out.dcm"
    options = {"class_names": list(CODES), "name": "map", "series": volume_at(folder)} | options
    summary = write_dicom_seg(target, label_map, affine, **options)
    return pydicom.dcmread(target), summary


def read_back(made: pydicom.Dataset, folder: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The label map, (column, row, slice), placed by the position of each frame; geometry and references checked."""
    series = volume_at(folder)
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, series.paths)}
    places = [np.array(frame.position) for frame in series.frames]
    shared = made.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, series.frames[0].orientation, atol=1e-9
    )
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, series.frames[0].spacing)
    label_map = np.zeros(shape, np.uint8)
    frames = made.pixel_array.reshape(-1, made.Rows, made.Columns)
    for pixels, group in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        (index,) = np.flatnonzero([np.allclose(place, position, atol=1e-6) for place in places])
        label_map[..., index][pixels.T > 0] = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        sources = group.DerivationImageSequence[0].SourceImageSequence
        assert len(sources) == 1
        header = headers[sources[0].ReferencedSOPInstanceUID]
        assert header.FrameOfReferenceUID == made.FrameOfReferenceUID
        if "NumberOfFrames" in header:
            header = header.PerFrameFunctionalGroupsSequence[int(sources[0].ReferencedFrameNumber) - 1]
            assert int(sources[0].ReferencedFrameNumber) == series.frames[index].index + 1
            header = header.PlanePositionSequence[0]
        np.testing.assert_allclose(header.ImagePositionPatient, position, atol=1e-9)
    return label_map


@pytest.mark.parametrize("affine", [AXIAL, oblique()], ids=["axial", "oblique"])
def test_every_order_and_direction_of_the_axes_comes_back_exactly(affine, tmp_path):
    """The label map in 48 forms of the same grid, as other programs may have saved it."""
    write_series(tmp_path / "in", image(), affine, numbers=[3, 1, 5, 2, 4], names=list("dbaec"))
    label_map = labels()
    for turn in ALL_TURNS:
        turned = apply_orientation(label_map, turn)
        made, _ = write(tmp_path / "in", turned, affine @ inv_ornt_aff(turn, SHAPE))
        np.testing.assert_array_equal(read_back(made, tmp_path / "in", SHAPE), label_map)
        assert len(made.PerFrameFunctionalGroupsSequence) == 8  # two classes on four slices; empty frames are omitted


def test_highdicom_reads_the_same_volume(tmp_path):
    """Voxels and affine, by a reader that is not ours."""
    affine, label_map = oblique(), labels()
    label_map[..., 0] = 1
    label_map[..., -1] = 3
    write_series(tmp_path / "in", image(), affine)
    write(tmp_path / "in", label_map, affine)
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True)
    wanted = highdicom.Volume(
        label_map.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]], "PATIENT", from_reference_convention="RAS"
    )
    volume = volume.match_geometry(wanted)
    np.testing.assert_array_equal(volume.array, wanted.array)
    np.testing.assert_allclose(volume.affine, wanted.affine, atol=1e-6)


def validate(path: Path) -> None:
    """Ask dciodvfy, which is not ours either; its warnings are about attributes that may be empty."""
    if not shutil.which("dciodvfy"):
        pytest.skip("no dciodvfy here; Debian's dicom3tools has it")
    result = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    told = (result.stdout + result.stderr).splitlines()
    assert "Segmentation" in told
    assert not [line for line in told if line.startswith("Error")]
    assert all("DICOMDIR" in line for line in told if line.startswith("Warning"))


@pytest.mark.parametrize("kind", ["series", "enhanced", "one slice", "absent"])
def test_the_object_is_valid(kind, tmp_path):
    shape = (9, 7, 1) if kind == "one slice" else SHAPE
    if kind == "enhanced":
        write_enhanced(tmp_path / "in" / "a", image(), oblique(), order=[4, 2, 0, 1, 3])
    else:
        write_series(tmp_path / "in", image(shape), oblique())
    label_map = np.zeros(shape, np.uint8) if kind == "absent" else labels(shape)
    made, summary = write(tmp_path / "in", label_map, oblique())
    validate(tmp_path / "out.dcm")
    np.testing.assert_array_equal(read_back(made, tmp_path / "in", shape), label_map)
    assert summary.count("absent") == (3 if kind == "absent" else 1)


def test_a_frame_refers_to_its_own_echo(tmp_path):
    """Two volumes at one place in one multi-frame file, each frame with its own orientation and spacing."""
    path = write_enhanced(tmp_path / "in" / "a", np.repeat(image(), 2, axis=2), AXIAL, order=range(10))
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, 3.0 * (index // 2)]
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = float(10 + index % 2)
        group.MREchoSequence = [echo]
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
    dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    dataset.save_as(path)
    with pytest.raises(InputError, match="holds 2 MR volumes"):
        volume_at(path)
    for number in (1, 2):
        series = next(series for name in [path] for series in segmented(name) if series.name.endswith(f"-{number}"))
        made, _ = write(tmp_path / "in", labels(), AXIAL, series=series)
        for group in made.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0].ImagePositionPatient[2] / 3
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedFrameNumber == 2 * place + number


def segmented(path: Path) -> list:
    from kvseg_monai.dicom import find_series

    return find_series(path)[0]


def test_absent_organs_are_declared(tmp_path):
    write_series(tmp_path / "in", image(), AXIAL)
    made, summary = write(tmp_path / "in", labels(), AXIAL)
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == list(CODES)
    assert [segment.get("SegmentDescription") for segment in made.SegmentSequence] == [None, ABSENT, None]
    assert "  2 small_bowel (SCT 30315005, Small intestine): absent" in summary
    millilitre = np.count_nonzero(labels() == 1) * 1.5 * 1.25 * 3 / 1000
    assert f"  1 large_bowel (SCT 14742008, Large intestine): {millilitre:.1f} ml on 4 slices" in summary


def test_the_object_says_what_made_it_and_from_what(tmp_path):
    paths = write_series(tmp_path / "in", image(), AXIAL, StudyID="S1", PatientSex="F")
    algorithm = segmentation.Algorithm("SETR with KV attention", "1.2.3")
    made, _ = write(tmp_path / "in", labels(), AXIAL, algorithm=algorithm)
    for segment in made.SegmentSequence:
        (who,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (who.AlgorithmName, who.AlgorithmVersion) == ("SETR with KV attention", "1.2.3")
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    source = pydicom.dcmread(paths[0])
    for keyword in (*PATIENT, "PatientSex", "StudyID", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert made[keyword].value == source[keyword].value
    assert (made.Modality, made.Manufacturer, made.SeriesNumber) == ("SEG", "kvseg_monai", 1004)
    (referred,) = made.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID != made.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == {
        pydicom.dcmread(path).SOPInstanceUID for path in paths
    }


def test_the_codes_are_dicoms_own():
    assert ANATOMICAL_STRUCTURE.value == codes.cid7150.AnatomicalStructure.value
    for name, keyword in (("large_bowel", "LargeIntestine"), ("small_bowel", "SmallIntestine"), ("stomach", "Stomach")):
        code = getattr(codes.cid7151, keyword)
        assert (CODES[name].value, CODES[name].meaning) == (code.value, code.meaning)
        assert CODES[name].scheme == code.scheme_designator == "SCT"
    assert yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())["labels"][1:] == list(CODES) == list(CLASSES)


def test_the_colours_are_those_of_the_report(tmp_path):
    write_series(tmp_path / "in", image(), AXIAL)
    made, _ = write(tmp_path / "in", labels(), AXIAL)
    for segment, colour in zip(made.SegmentSequence, COLOURS, strict=False):
        shown = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        assert np.abs(np.array(shown) - list(bytes.fromhex(colour[1:]))).max() <= 2


def test_other_labels_take_codes_from_a_file_or_a_generic_one(tmp_path, caplog):
    write_series(tmp_path / "in", image(), AXIAL)
    (tmp_path / "codes.json").write_text('{"LV": {"value": "87878005", "meaning": "Left ventricle"}}')
    further = {**CODES, **read_codes(tmp_path / "codes.json")}
    made, _ = write(tmp_path / "in", labels(), AXIAL, class_names=["RV", "MYO", "LV"], codes=further)
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for segment in made.SegmentSequence]
    assert kinds == ["Anatomical Structure", "Anatomical Structure", "Left ventricle"]
    assert [record.message for record in caplog.records if "has no code" in record.message] == [
        f"{name} has no code; it is coded as Anatomical Structure" for name in ("RV", "MYO")
    ]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {}}', '{"a": {"value": "1", "meaning": ""}}', '{"a": 1}'])
def test_wrong_codes_are_told(content, tmp_path):
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(InputError, match=r"codes.json .*must hold an object like"):
        read_codes(tmp_path / "codes.json")


def save_map(folder: Path, label_map: np.ndarray, affine: np.ndarray = AXIAL, name: str = "map.nii.gz") -> Path:
    nib.save(nib.Nifti1Image(label_map, affine), folder / name)
    return folder / name


def command(tmp_path: Path, *more: str, prediction: Path) -> list[str]:
    line = ["--prediction", str(prediction), "--series", str(tmp_path / "in"), "--target", str(tmp_path / "out.dcm")]
    return [*line, *more]


def test_the_command_writes_and_tells(tmp_path, capsys):
    """The label map's name chooses among the series of a folder; the bundle says who segmented."""
    write_series(tmp_path / "in" / "a", image(), AXIAL)
    write_series(tmp_path / "in" / "b", image(), oblique(), SeriesInstanceUID=series_uid("b"), SeriesNumber=9)
    chosen = volume_at(tmp_path / "in" / "b")
    prediction = save_map(tmp_path, labels(), oblique(), f"{chosen.name}.nii.gz")
    bundle = ROOT / "bundles" / BUNDLES[1]
    main(command(tmp_path, "--bundle", str(bundle), prediction=prediction))
    told = capsys.readouterr().out
    assert told.startswith(
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
    "no bundle": ((labels(), AXIAL), ("--bundle", "nowhere"), "metadata.json cannot be read as a bundle's metadata"),
    "no series": ((labels(), AXIAL), ("--series", "nowhere"), "nowhere does not exist"),
    "no map": ((labels(), AXIAL), ("--prediction", "nowhere.nii"), "nowhere.nii is missing"),
    "a folder": ((labels(), AXIAL), ("--target", ".", "--overwrite"), "is a folder; give the name of a file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_and_nothing_is_written(name, tmp_path, monkeypatch):
    saved, options, sentence = MISTAKES[name]
    write_series(tmp_path / "in", image(), AXIAL)
    prediction = save_map(tmp_path, *saved)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        main(command(tmp_path, *options, prediction=prediction))
    assert not list(tmp_path.glob("*.dcm")) + list(tmp_path.glob(".partial*"))


def test_the_command_line_ends_with_a_sentence_and_exit_code_2(tmp_path):
    line = [sys.executable, "-m", "kvseg_monai.dicom_seg", *command(tmp_path, prediction=tmp_path / "map.nii.gz")]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {tmp_path}/map.nii.gz is missing; restore it or correct the path\n"


def test_series_that_no_segmentation_can_refer_to(tmp_path, monkeypatch):
    for path in write_series(tmp_path / "a", image(), AXIAL):
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    with pytest.raises(InputError, match="has no FrameOfReferenceUID, so no DICOM SEG can say where it lies"):
        write(tmp_path / "a", labels(), AXIAL)
    for half, order in (("1", [0, 1, 2]), ("2", [3, 4])):
        write_enhanced(tmp_path / "b" / half, image(), AXIAL, order=order)
    with pytest.raises(InputError, match="lies in 2 multi-frame files, and a DICOM SEG refers to one; join them"):
        write(tmp_path / "b", labels(), AXIAL)
    for path in write_series(tmp_path / "c", image(), AXIAL):
        dataset = pydicom.dcmread(path)
        del dataset.StudyInstanceUID
        dataset.save_as(path)
    with pytest.raises(InputError, match=r"its headers make no DICOM SEG \(AttributeError\); export the series again"):
        write(tmp_path / "c", labels(), AXIAL)
    monkeypatch.setattr(segmentation, "has_highdicom", False)
    with pytest.raises(InputError, match="DICOM SEG is written by highdicom, which is missing: pip install"):
        write(tmp_path / "a", labels(), AXIAL)
    assert not list(tmp_path.glob("*.dcm"))


def test_logs_and_summary_hold_no_identity(tmp_path, caplog, recwarn):
    write_series(tmp_path / "in", image(), AXIAL, PatientName="Singlename")
    with caplog.at_level(logging.DEBUG):
        made, summary = write(tmp_path / "in", labels(), AXIAL)
    secrets = [*PATIENT.values(), "Singlename", made.StudyInstanceUID, made.SeriesInstanceUID]
    assert not [secret for secret in secrets if secret in caplog.text + summary]
    assert not recwarn.list


def infer(tmp_path: Path, target: str, *overlays: str) -> None:
    made = create_workflow(
        config_file=[config(BUNDLES[1], "inference"), *overlays],
        workflow_type="inference",
        bundle_root=str(tmp_path),
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / target),
        image_size=[96, 96],
        handlers=["@bad_cases"],
    )
    made.parser["network"] = IntensityOracle()
    made.parser["postprocessing"]["transforms"][1]["nearest_interp"] = True
    made.parser.parse(reset=True)
    made.run()


def test_inference_goes_from_a_dicom_folder_to_dicom_seg(tmp_path):
    """The same label map as without the overlay; done series are not made again, NIfTI files are refused."""
    write_series(tmp_path / "in" / "a", make_volume(0)[0], oblique(5))
    overlay = str(ROOT / "bundles" / "examples" / "dicom_seg.json")
    infer(tmp_path, "maps")
    infer(tmp_path, "segs", overlay)
    (label_map,), (written,) = (list((tmp_path / name).iterdir()) for name in ("maps", "segs"))
    assert written.name == label_map.name.replace(".nii.gz", ".dcm") == f"{volume_at(tmp_path / 'in' / 'a').name}.dcm"
    expected = np.asarray(nib.load(label_map).dataobj)
    np.testing.assert_array_equal(read_back(pydicom.dcmread(written), tmp_path / "in" / "a", expected.shape), expected)
    validate(written)
    save_map(tmp_path / "in", make_volume(0)[0], name="scan.nii.gz")
    with pytest.raises(RuntimeError, match="bad_cases") as error:
        infer(tmp_path, "segs", overlay)
    assert "scan.nii.gz is no DICOM series" in str(find_input_error(error.value))
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        infer(tmp_path, "segs", overlay)
    assert [path.name for path in (tmp_path / "segs").iterdir()] == [written.name]
