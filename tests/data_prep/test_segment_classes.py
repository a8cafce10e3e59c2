"""Which segments of DICOM segmentations become which classes: by name and codes, of the prepared volumes alone."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import reference, series_uid, write_segmentation, write_series
from made_sources import prepare
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from seg_objects import write

from data_prep.dicom.segment_names import Segment, class_names
from kvseg_monai.errors import InputError

AFFINE = np.diag([-1.5, -1.6, 3, 1])
TYPE, SIDE = "SegmentedPropertyTypeCodeSequence", "SegmentedPropertyTypeModifierCodeSequence"
REGION = "AnatomicRegionSequence"
LIVER, SPLEEN, KIDNEY = ("10200004", "SCT", "Liver"), ("78961009", "SCT", "Spleen"), ("64033007", "SCT", "Kidney")
RIGHT, LEFT, MASS = ("24028007", "SCT", "Right"), ("7771000", "SCT", "Left"), ("4147007", "SCT", "Mass")


def code(value: str, scheme: str, meaning: str, **parts: tuple) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    for keyword, part in parts.items():
        setattr(item, keyword, [code(*part)])
    return item


def edit(path: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def say(path: Path, *segments: dict[str, Dataset]) -> Path:
    """Give the segments of a SEG codes, in order."""

    def change(dataset: Dataset) -> None:
        for item, parts in zip(dataset.SegmentSequence, segments, strict=True):
            for keyword, concept in parts.items():
                setattr(item, keyword, [concept])

    return edit(path, change)


def volume(folder: Path, name: str = "one", **values: str) -> tuple[np.ndarray, list[Path], str]:
    """A series ``name`` of its own UID and frame of reference: labels 0 to 2 that fit it, its files, its UID."""
    rng = np.random.default_rng(len(name))
    uids = {"SeriesInstanceUID": series_uid(name), "FrameOfReferenceUID": series_uid(f"{name}-frame")} | values
    paths = write_series(folder / name, rng.integers(0, 1000, (7, 5, 4)).astype(np.int16), AFFINE, **uids)
    return rng.integers(0, 3, (7, 5, 4)).astype(np.uint8), paths, uids["SeriesInstanceUID"]


def segment(folder: Path, label: np.ndarray, names: Sequence[str], *, of: str = "one", **values) -> Path:
    """A SEG in the frame of reference of the series ``of``; its segments are numbered 1, 2, ..."""
    values = {"FrameOfReferenceUID": series_uid(f"{of}-frame"), "SeriesInstanceUID": "1.2.3"} | values
    return write_segmentation(
        folder / values.pop("file", "seg"), label, AFFINE, dict(enumerate(names, start=1)), **values
    )


def run(source: Path, target: Path, *options: str) -> dict:
    """Prepare, and return the summary."""
    prepare("dicom", ["--source", str(source), *options], target)
    return json.loads((target / "summary.json").read_text())


def classes(summary: dict) -> list[str]:
    return list(summary["labels"].values())[1:]


def labels(target: Path, number: int = 0) -> np.ndarray:
    return np.asarray(nib.load(sorted((target / "labels").glob("*.nii.gz"))[number]).dataobj)


# One name, several things.

PAIRS = {  # of segments that have one name: what they are, and the classes
    "types": ({TYPE: code(*LIVER)}, {TYPE: code(*SPLEEN)}, ["segment_1_liver", "segment_1_spleen"]),
    "sides": (
        {TYPE: code(*KIDNEY, **{SIDE: RIGHT})},
        {TYPE: code(*KIDNEY, **{SIDE: LEFT})},
        ["segment_1_kidney_right", "segment_1_kidney_left"],
    ),
    "one side": (
        {TYPE: code(*KIDNEY)},
        {TYPE: code(*KIDNEY, **{SIDE: LEFT})},
        ["segment_1_kidney", "segment_1_kidney_left"],
    ),
    "regions": (
        {TYPE: code(*MASS), REGION: code(*LIVER)},
        {TYPE: code(*MASS), REGION: code(*SPLEEN)},
        ["segment_1_mass_liver", "segment_1_mass_spleen"],
    ),
    "schemes": (
        {TYPE: code("7", "99A", "Liver")},
        {TYPE: code("7", "99B", "Liver")},
        ["segment_1_liver_99a_7", "segment_1_liver_99b_7"],
    ),
    "without meaning": (
        {TYPE: code("7", "99A", "")},
        {TYPE: code("8", "99A", "")},
        ["segment_1_99a_7", "segment_1_99a_8"],
    ),
}


@pytest.mark.parametrize("files", ["one file", "two files"])
@pytest.mark.parametrize("kind", PAIRS)
def test_one_name_and_two_codes_are_two_classes(kind, files, tmp_path, target):
    one, two, names = PAIRS[kind]
    label, *_ = volume(tmp_path / "in")
    if files == "one file":
        say(segment(tmp_path / "in", label, ["Segment_1", "segment 1"]), one, two)
    else:
        say(segment(tmp_path / "in", (label == 1).astype(np.uint8), ["Segment_1"], file="a"), one)
        say(segment(tmp_path / "in", (label == 2).astype(np.uint8), ["Segment_1"], file="b"), two)
    summary = run(tmp_path / "in", target)
    assert sorted(classes(summary)) == sorted(names)
    value = {name: int(number) for number, name in summary["labels"].items()}
    expected = np.array([0, value[names[0]], value[names[1]]], np.uint8)[label]
    np.testing.assert_array_equal(labels(target), expected)
    reported = f"segments called segment_1 have several codes and are several classes: {', '.join(sorted(names))}"
    assert reported in summary["remarks"]


SAME = {
    "equal": ({TYPE: code(*LIVER)}, {TYPE: code(*LIVER[:2], "LIVER, whole")}),
    "SNOMED RT": ({TYPE: code("T-62000", "SRT", "Liver")}, {TYPE: code(*LIVER)}),
    "SNOMED 3": ({TYPE: code("T-62000", "SNM3", "Liver")}, {TYPE: code("T-62000", "99SDM", "Liver")}),
    "not said": ({TYPE: code(*LIVER)}, {}),
    "sides": (
        {TYPE: code("T-71000", "SRT", "Kidney", **{SIDE: ("G-A100", "SRT", "Right")})},
        {TYPE: code(*KIDNEY), SIDE: code(*RIGHT)},
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_one_name_and_codes_that_mean_the_same_are_one_class(kind, tmp_path, target):
    for of, said in zip(("one", "two"), SAME[kind], strict=True):
        label, *_ = volume(tmp_path / "in", of)
        say(segment(tmp_path / "in", label, ["Organ", "Rest"], of=of, file=f"seg-{of}"), said, {})
    summary = run(tmp_path / "in", target)
    assert classes(summary) == ["organ", "rest"]
    assert not [remark for remark in summary["remarks"] if "codes" in remark]


def test_one_code_under_two_names_is_two_classes(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    say(segment(tmp_path / "in", label, ["Liver", "Right lobe"]), {TYPE: code(*LIVER)}, {TYPE: code(*LIVER)})
    assert classes(run(tmp_path / "in", target)) == ["liver", "right_lobe"]


def test_segments_that_are_alike_are_one_class_and_reported(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    said = {TYPE: code(*MASS)}
    say(segment(tmp_path / "in", label, ["Lesion", "lesion"]), said, said)
    summary = run(tmp_path / "in", target)
    np.testing.assert_array_equal(labels(target), label > 0)
    assert "seg: segments 1, 2 are one class, lesion: name and codes are equal" in summary["remarks"]


def test_names_are_unique_whatever_the_order():
    """Names that are longer by a code may be another segment's name; each class still has a name of its own."""
    liver, spleen = (frozenset({(TYPE, "SCT", value)}) for value in ("1", "2"))
    segments = [
        Segment("a", liver, "Liver"),
        Segment("A", spleen, "Spleen"),
        Segment("a liver", liver, "x"),
        Segment("a_liver_sct_1", frozenset(), ""),
        Segment("A", frozenset(), ""),
        Segment("background", liver, "Liver"),
        Segment("Background", spleen, "Spleen"),
    ]
    found = [class_names(order) for order in itertools.permutations(segments)]
    assert all(names == found[0] for names in found)
    assert len(set(found[0].values())) == 6
    assert {found[0][one] for one in segments[-2:]} == {"background"}
    assert class_names([Segment("x", liver, "a-b"), Segment("x", spleen, "a b")]).keys() == {
        Segment("x", liver, "a-b"),
        Segment("x", spleen, "a b"),
    }
    assert class_names([]) == {}


def test_a_table_names_the_longer_names(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    say(segment(tmp_path / "in", label, ["Segment_1", "Segment_1"]), {TYPE: code(*LIVER)}, {TYPE: code(*SPLEEN)})
    summary = run(tmp_path / "in", target, "--labels", "segment_1=liver")
    (sentence,) = summary["failed"].values()
    assert sentence.startswith(
        "seg has the segment 'Segment_1', of which there are several by their codes, and --labels"
    )
    assert sentence.endswith("add segment_1_liver, as a class or as background")
    table = "segment_1_liver=liver,Segment 1 Spleen=background"
    assert classes(run(tmp_path / "in", tmp_path / "b", "--labels", table)) == ["liver"]
    np.testing.assert_array_equal(labels(tmp_path / "b"), label == 1)
    run(tmp_path / "in", tmp_path / "c", "--labels", "segment_1_liver=organ,segment_1_spleen=organ")
    np.testing.assert_array_equal(labels(tmp_path / "c"), label > 0)
    with pytest.raises(InputError, match="--labels has Liver twice, but for case, blanks and the like"):
        run(tmp_path / "in", tmp_path / "d", "--labels", "liver=a,Liver=b")


# Names that are none.


def test_a_background_a_nameless_segment_and_odd_characters(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    path = segment(tmp_path / "in", label, ["Background", ""])
    say(path, {TYPE: code(*MASS)}, {TYPE: code(*LIVER)})
    assert classes(run(tmp_path / "in", target)) == ["liver"]
    np.testing.assert_array_equal(labels(target), label == 2)
    segment(tmp_path / "in", label, ["a=b,c", "Übrige / rest"])
    assert classes(run(tmp_path / "in", tmp_path / "b")) == ["a_b_c", "übrige_/_rest"]
    assert classes(run(tmp_path / "in", tmp_path / "c", "--labels", "A b C=x,übrige / rest=y")) == ["x", "y"]
    segment(tmp_path / "in", label, ["-_-", "b"])
    summary = run(tmp_path / "in", tmp_path / "d")
    assert "its segment 1 has neither a name nor a code in words" in summary["failed"]["seg"]
    assert classes(summary) == []


def test_more_classes_than_a_label_map_holds(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    segment(tmp_path / "in", label, [f"part {number}" for number in range(255)])
    with pytest.raises(InputError, match="the labels are 255 classes; at most 254 fit a label map"):
        run(tmp_path / "in", target)
    assert not target.exists()


# Of which series.


def test_other_series_give_no_class_and_no_number(tmp_path, target):
    """Neither a series that is not here, nor one that is at fault, nor one of a grid that nothing has."""
    source = tmp_path / "in"
    label, *_ = volume(source)
    segment(source, label, ["Liver", "Spleen"])
    segment(source, label, ["Aorta", "Bone"], of="elsewhere", file="lost")
    gap = volume(source, "gap")
    gap[1][1].unlink()
    references = reference([gap[1][0], *gap[1][2:]], gap[2])
    segment(source, label, ["Colon"], of="gap", file="gap-seg", ReferencedSeriesSequence=references)
    volume(source, "off")
    beside = AFFINE + np.eye(4, k=3) * 0.7
    frame = {"FrameOfReferenceUID": series_uid("off-frame"), "SeriesInstanceUID": "1.2.3"}
    write_segmentation(source / "off-seg", label, beside, {1: "Heart"}, **frame)
    summary = run(source, target)
    assert summary["labels"] == {"0": "background", "1": "liver", "2": "spleen"}
    for name in ("lost", "gap-seg"):
        assert f"left out: {name}: it segments no MR volume here" in summary["remarks"]
    assert [sentence for sentence in summary["failed"].values() if "off-seg lies on another grid" in sentence]
    assert len(summary["failed"]) == 2
    table = run(source, tmp_path / "b", "--labels", "liver=liver,spleen=spleen")
    assert table["labels"] == summary["labels"]


def test_a_segmentation_that_names_no_series_is_of_the_same_patient_and_grid(tmp_path, target):
    """Anonymizers give everybody one frame of reference; the sources of its frames count as what it refers to."""
    source, one = tmp_path / "in", {"FrameOfReferenceUID": "1.2.9"}
    label, paths, _ = volume(source, **one)
    volume(source, "other", PatientID="other", **one)
    rng = np.random.default_rng(0)
    finer = rng.integers(0, 9, (7, 5, 4)).astype(np.int16)
    write_series(source / "finer", finer, AFFINE * [0.9, 0.9, 1, 1], SeriesInstanceUID="1.2.7", SeriesNumber=5, **one)
    path = segment(source, label, ["Liver", "Spleen"], **one)
    assert run(source, target)["labelled_scans"] == 1
    np.testing.assert_array_equal(labels(target), label)

    def derive(dataset: Dataset) -> None:
        dataset.PatientID = "renamed"
        derivation = Dataset()
        derivation.SourceImageSequence = reference(paths, "1")[0].ReferencedInstanceSequence
        dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence = [derivation]

    edit(path, derive)
    assert run(source, tmp_path / "b")["labelled_scans"] == 1
    np.testing.assert_array_equal(labels(tmp_path / "b"), label)


def test_a_segmentation_of_several_series_labels_those_on_its_grid(tmp_path, target):
    source, frame = tmp_path / "in", {"FrameOfReferenceUID": "1.2.9"}
    label, one, uid = volume(source, **frame)
    _, two, other = volume(source, "copy", **frame)
    coarse = write_series(
        source / "coarse", np.ones((4, 3, 2), np.int16), AFFINE * 2, SeriesInstanceUID="1.2.7", **frame
    )
    references = [*reference(one, uid), *reference(two, other), *reference(coarse, "1.2.7")]
    segment(source, label, ["Liver", "Spleen"], ReferencedSeriesSequence=references, **frame)
    summary = run(source, target)
    assert (summary["scans"], summary["labelled_scans"], summary["failed"]) == (3, 2, {})
    assert all(np.array_equal(labels(target, number), label) for number in (0, 1))
    assert [remark for remark in summary["remarks"] if "seg is no label of it, for it lies on the grid of" in remark]


def test_a_segmentation_of_some_slices_leaves_the_others_empty(tmp_path, target):
    label, paths, uid = volume(tmp_path / "in")
    label[:, :, 2:] = 0
    segment(tmp_path / "in", label, ["Liver", "Spleen"], ReferencedSeriesSequence=reference(paths[:2], uid))
    run(tmp_path / "in", target)
    np.testing.assert_array_equal(labels(target), label)


def test_a_copy_is_reported_and_a_class_that_a_second_file_lacks_is_no_conflict(tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    first = segment(tmp_path / "in", (label == 1).astype(np.uint8), ["Liver", "Spleen"])
    shutil.copy(first, tmp_path / "in" / "seg-copy")
    segment(tmp_path / "in", (label == 2) * np.uint8(2), ["Liver", "Spleen"], file="spleen")
    summary = run(tmp_path / "in", target)
    assert (summary["failed"], classes(summary)) == ({}, ["liver", "spleen"])
    np.testing.assert_array_equal(labels(target), label)
    assert "left out: seg-copy: a second copy of a segmentation" in summary["remarks"]


def test_a_prediction_is_no_ground_truth_unless_it_is_asked_for(tmp_path, target):
    """What this package wrote as DICOM SEG, next to its series, as a second preparation finds it."""
    label, *_ = volume(tmp_path / "in" / "mr")
    write(tmp_path / "in" / "mr", label, AFFINE, class_names=["large_bowel", "stomach"])
    summary = run(tmp_path / "in", target)
    assert (summary["scans"], summary["labelled_scans"], classes(summary)) == (1, 0, [])
    assert [remark for remark in summary["remarks"] if "out.dcm: kvseg_monai predicted it" in remark]
    assert classes(run(tmp_path / "in", tmp_path / "b", "--predictions")) == ["large_bowel", "stomach"]
    np.testing.assert_array_equal(labels(tmp_path / "b"), label)
    edit(tmp_path / "in" / "out.dcm", lambda dataset: setattr(dataset, "Manufacturer", "3D Slicer"))  # corrected there
    assert run(tmp_path / "in", tmp_path / "c")["labelled_scans"] == 1


# What frames hold.


@pytest.mark.parametrize("kind", ["LABELMAP", "BINARY", "FRACTIONAL"])
def test_segmentations_by_highdicom(kind, tmp_path, target):
    """Written by a program that is not ours; a LABELMAP of it has a segment for the background."""
    label, paths, _ = volume(tmp_path / "in")
    label[:, :, 1] = 0
    sources = [pydicom.dcmread(path) for path in paths]
    for source in sources:
        for keyword in ("PatientSex", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            setattr(source, keyword, None)
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=label.transpose(2, 1, 0),
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, "Segment_1", codes.SCT.Organ, organ, "MANUAL")
            for number, organ in ((1, codes.SCT.Liver), (2, codes.SCT.Spleen))
        ],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(tmp_path / "in" / "seg.dcm")
    assert classes(run(tmp_path / "in", target)) == ["segment_1_liver", "segment_1_spleen"]
    np.testing.assert_array_equal(labels(target), label)


def padded(dataset: Dataset) -> None:
    """Pixel 2 is the background, and 0 a segment."""
    dataset.SegmentSequence[1].SegmentNumber = 0
    dataset.add_new("PixelPaddingValue", "US", 2)


def zero(dataset: Dataset) -> None:
    """No word on the background, and 0 a segment: then nothing is."""
    dataset.SegmentSequence[1].SegmentNumber = 0
    dataset.PixelData = dataset.PixelData.replace(b"\2", b"\0")


def shared(dataset: Dataset) -> None:
    """One segment, which the shared group names."""
    for group in dataset.PerFrameFunctionalGroupsSequence:
        identification = group.SegmentIdentificationSequence
        del group.SegmentIdentificationSequence
    dataset.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence = identification


def private(dataset: Dataset) -> None:
    """A maker's own sequences hold another place and spacing, behind and before the standard's."""
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for tag in (0x2005, 0x0019):
            block = group.private_block(tag, "MAKER", create=True)
            item = Dataset()
            item.ImagePositionPatient, item.PixelSpacing, item.ReferencedSegmentNumber = [500.0, 1, 2], [9.0, 9], 2
            block.add_new(0x0F, "SQ", [item])


FRAMES = {  # kind, the segments' values, change, the labels of pixels 0, 1, 2
    "padding": ("LABELMAP", 2, padded, [2, 1, 0]),
    "no padding": ("LABELMAP", 2, zero, [2, 1, 2]),
    "shared number": ("BINARY", 1, shared, [0, 1, 0]),
    "private": ("BINARY", 2, private, [0, 1, 2]),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_say_what_they_hold_in_many_ways(name, tmp_path, target):
    kind, most, change, meaning = FRAMES[name]
    label, *_ = volume(tmp_path / "in")
    names = ["Liver", "Spleen"][:most]
    edit(segment(tmp_path / "in", np.where(label > most, 0, label).astype(np.uint8), names, kind=kind), change)
    summary = run(tmp_path / "in", target)
    assert sorted(classes(summary)) == sorted(name.lower() for name in names)
    value = {name: int(number) for number, name in summary["labels"].items()}
    by_number = np.array([0, *(value[name.lower()] for name in names)], np.uint8)
    np.testing.assert_array_equal(labels(target), by_number[np.array(meaning)[label]])


REFUSED = {
    "its type is VOTES; BINARY, FRACTIONAL and LABELMAP are read": lambda one: setattr(
        one, "SegmentationType", "VOTES"
    ),
    "it has no MaximumFractionalValue": lambda one: setattr(one, "MaximumFractionalValue", 0),
    "it gives one number to two segments": lambda one: setattr(one.SegmentSequence[1], "SegmentNumber", 1),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_files_that_say_nothing_certain_are_refused(sentence, tmp_path, target):
    label, *_ = volume(tmp_path / "in")
    edit(segment(tmp_path / "in", label, ["Liver", "Spleen"], kind="FRACTIONAL"), REFUSED[sentence])
    summary = run(tmp_path / "in", target)
    assert sentence in summary["failed"]["seg"]
    assert (classes(summary), summary["labelled_scans"]) == ([], 0)
