"""DICOM SEG: read back voxel by voxel, valid for dciodvfy, with codes, references and absent organs as they are."""

import logging
import shutil

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, write_enhanced, write_series
from nibabel.orientations import apply_orientation, inv_ornt_aff
from pydicom.data import get_testdata_file
from seg_objects import ALL_TURNS, AXIAL, SHAPE, image, labels, oblique, read_back, validate, write

from kvseg_monai.dicom import find_series, segmentation
from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.dicom.segmentation import ABSENT
from kvseg_monai.errors import InputError
from kvseg_monai.utils.labels import CODES, COLOURS, read_codes


@pytest.mark.parametrize(
    ("affine", "turns"), [(AXIAL, ALL_TURNS), (oblique(), ALL_TURNS[::7])], ids=["axial", "oblique"]
)
def test_every_order_and_direction_of_the_axes_comes_back_exactly(affine, turns, tmp_path):
    """The label map in 48 forms of the same grid, as other programs may have saved it; the files are unsorted."""
    write_series(tmp_path / "in", image(), affine, numbers=[3, 1, 5, 2, 4], names=list("dbaec"))
    label_map = labels()
    for turn in turns:
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


def test_a_real_mr_slice_gives_a_valid_object(tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(get_testdata_file("MR_small.dcm"), tmp_path / "in")
    series = volume_at(tmp_path / "in")
    label_map = np.zeros(series.shape, np.uint8)
    label_map[10:20, 5:40] = 2
    made, summary = write(tmp_path / "in", label_map, series.affine)
    validate(tmp_path / "out.dcm")
    np.testing.assert_array_equal(read_back(made, tmp_path / "in", series.shape), label_map)
    assert summary.startswith(f"{series.name}, 64 x 64 x 1 voxels of 0.3125 x 0.3125 x 0.8 mm")


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
    for number, series in enumerate(find_series(path)[0], start=1):
        made, _ = write(tmp_path / "in", labels(), AXIAL, series=series)
        for group in made.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0].ImagePositionPatient[2] / 3
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedFrameNumber == 2 * place + number


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


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "1970-02-03"),
        ("StudyDate", "spring"),
        ("StudyDate", ["20200101", "20200102"]),
        ("StudyTime", "25:99"),
        ("PatientSex", "N"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_careless_header_is_emptied_and_reported_without_its_value(keyword, value, tmp_path, caplog):
    write_series(tmp_path / "in", image(), AXIAL, **{keyword: value})
    made, _ = write(tmp_path / "in", labels(), AXIAL)
    validate(tmp_path / "out.dcm")
    assert made[keyword].value in (None, "")
    name = volume_at(tmp_path / "in").name
    reported = [record.message for record in caplog.records if record.name != "pydicom"]  # it wrote the test's own file
    assert reported == [f"{name}: {keyword} holds no valid value and is left empty in the DICOM SEG"]


def test_a_name_beyond_ascii_is_kept(tmp_path):
    write_series(tmp_path / "in", image(), AXIAL, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    made, _ = write(tmp_path / "in", labels(), AXIAL)
    assert made.PatientName == "Müller^Jörg"


def test_logs_and_summary_hold_no_identity(tmp_path, caplog, recwarn):
    write_series(tmp_path / "in", image(), AXIAL, PatientName="Singlename")
    with caplog.at_level(logging.DEBUG):
        made, summary = write(tmp_path / "in", labels(), AXIAL)
    secrets = [*PATIENT.values(), "Singlename", made.StudyInstanceUID, made.SeriesInstanceUID]
    assert not [secret for secret in secrets if secret in caplog.text + summary]
    assert not recwarn.list
