"""Enhanced MR objects: a frame's facts stand in standard functional groups, and private ones count for nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import WHOLE, write_enhanced
from pydicom.dataset import Dataset

from kvseg_monai.dicom import Series, find_series

AFFINE = np.diag([-1.5, -1.25, 3, 1])
VOXELS = np.random.default_rng(0).integers(0, 1000, (7, 5, 6)).astype(np.uint16)
CLASSIC = {  # what scanners repeat of a frame, each value wrong on purpose
    "ImagePositionPatient": [50, 60, 70],
    "ImageOrientationPatient": [0, 1, 0, 1, 0, 0],
    "PixelSpacing": [9, 8],
    "SpacingBetweenSlices": 7,
    "RescaleSlope": 2,
    "RescaleIntercept": 7,
    "TemporalPositionIndex": 3,
    "FrameType": ["DERIVED"],
    "EffectiveEchoTime": 5,
    "FlipAngle": 6,
}


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def private(parent: Dataset, number: int) -> None:
    """A private sequence whose values differ from frame to frame, and another one in it."""
    inner = item(**CLASSIC, EchoNumbers=number, InstanceNumber=number, AcquisitionNumber=number)
    nested = item(**CLASSIC, EchoNumbers=number)
    inner.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [nested])
    inner.PlanePositionSequence = [item(ImagePositionPatient=[1, 2, 3])]
    parent.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [inner])


def written(path: Path, change: Callable[[Dataset, list[Dataset], Dataset], None], **options: object) -> Path:
    """An enhanced file after ``change(shared groups, groups of each frame, dataset)``."""
    dataset = pydicom.dcmread(write_enhanced(path, VOXELS, AFFINE, **options))
    change(dataset.SharedFunctionalGroupsSequence[0], list(dataset.PerFrameFunctionalGroupsSequence), dataset)
    dataset.save_as(path, **WHOLE)
    return path


def volumes(path: Path) -> list[Series]:
    found, skipped = find_series(path)
    assert not skipped, [str(one) for one in skipped]
    return found


def same(series: Series, expected: np.ndarray = VOXELS) -> None:
    voxels, affine = series.load()
    np.testing.assert_allclose(voxels, expected)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("where", ["frames", "shared", "both"])
def test_private_groups_count_for_nothing(tmp_path, where):
    def change(shared, frames, dataset):
        for number, groups in enumerate([shared] * (where != "frames") + frames * (where != "shared")):
            private(groups, number)
        private(dataset, 1)

    (series,) = volumes(written(tmp_path / "one", change, order=[3, 1, 0, 5, 2, 4]))
    same(series)
    assert series.notes == ()


def test_a_standard_sequence_that_is_no_group_of_the_fact_counts_for_nothing(tmp_path):
    """A reference to another image may repeat its facts; a real world value mapping is no rescale."""

    def change(shared, frames, _dataset):
        for groups in [shared, *frames]:
            groups.ReferencedImageSequence = [item(**CLASSIC)]
            groups.RealWorldValueMappingSequence = [item(RealWorldValueSlope=5.0, **CLASSIC)]

    same(*volumes(written(tmp_path / "one", change)))


def test_a_group_of_the_frame_wins_over_the_shared_one_and_that_over_the_top_level(tmp_path):
    def change(shared, frames, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelSpacing = 10, 100, [4, 4]
        shared.PixelValueTransformationSequence = [item(RescaleSlope=3, RescaleIntercept=1)]
        for number, groups in enumerate(frames[:3], start=1):
            groups.PixelValueTransformationSequence = [item(RescaleSlope=number, RescaleIntercept=-number)]
        frames[3].PixelMeasuresSequence = [item(PixelSpacing=None)]  # says nothing

    slope, intercept = np.array([1, 2, 3, 3, 3, 3]), np.array([-1, -2, -3, 1, 1, 1])
    same(*volumes(written(tmp_path / "one", change)), VOXELS * slope + intercept)


def test_a_rescale_at_the_top_level_counts_where_no_group_has_one(tmp_path):
    def change(_shared, _frames, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, 5

    same(*volumes(written(tmp_path / "one", change)), VOXELS * 2.0 + 5)


def direction(*values: float) -> dict:
    gradient = [item(DiffusionGradientOrientation=list(values))]
    return {"MRDiffusionSequence": [item(DiffusionBValue=5.0, DiffusionGradientDirectionSequence=gradient)]}


def group(name: str, keyword: str, *values: object) -> list[dict]:
    return [{name: [item(**{keyword: value})]} for value in values]


ATTRIBUTES = {
    "image types": group("MRImageFrameTypeSequence", "ComplexImageComponent", "MAGNITUDE", "PHASE"),
    "echo times": group("MREchoSequence", "EffectiveEchoTime", 2.5, 12.5),
    "inversion times": group("MRModifierSequence", "InversionTimes", 90.0, 1000.0),
    "flip angles": group("MRTimingAndRelatedParametersSequence", "FlipAngle", 5.0, 15.0),
    "b-values": group("MRDiffusionSequence", "DiffusionBValue", 50.0, 1000.0),
    "diffusion directions": [direction(0, 0, 1), direction(0, 1, 0)],
    "velocity directions": group("MRVelocityEncodingSequence", "VelocityEncodingDirection", [0, 1, 0], [1, 0, 0]),
    "labelling states": group("MRArterialSpinLabelingSequence", "ASLContext", "CONTROL", "LABEL"),
    "temporal positions": group("FrameContentSequence", "TemporalPositionIndex", 1, 2),
    "acquisitions": group("FrameContentSequence", "FrameAcquisitionNumber", 1, 2),
    "heart phases": group("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", 9.0, 100.0),
    "echoes": group("UnassignedPerFrameConvertedAttributesSequence", "EchoNumbers", 1, 2),
    "repetitions by FrameAcquisitionDateTime": group(
        "FrameContentSequence", "FrameAcquisitionDateTime", "20200101101011.5", "20200101101012.5"
    ),
}


def two_volumes(tmp_path: Path, change: Callable[[Dataset, list[Dataset], Dataset], None]) -> list[Series]:
    return volumes(written(tmp_path / "two", change, order=[*range(6), *range(6)]))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_distinguishes_volumes_stands_in_its_group(tmp_path, name):
    def change(_shared, frames, _dataset):
        for number, groups in enumerate(frames):
            for keyword, value in ATTRIBUTES[name][number // 6].items():
                setattr(groups, keyword, value)
            private(groups, number)

    found = two_volumes(tmp_path, change)
    assert [[frame.index for frame in series.frames] for series in found] == [[*range(6)], [*range(6, 12)]]
    assert found[0].notes == (f"2 {name} at the same place",)


def test_dimensions_distinguish_volumes_where_no_known_fact_does(tmp_path):
    """As Philips does with what labels blood: the dimension points to a private element."""

    def change(_shared, frames, dataset):
        dataset.DimensionIndexSequence = [item(DimensionIndexPointer=tag) for tag in (0x00209057, 0x20051429)]
        for number, groups in enumerate(frames):
            groups.FrameContentSequence = [item(DimensionIndexValues=[number % 6 + 1, 2 - number // 6])]

    found = two_volumes(tmp_path, change)
    assert [[frame.index for frame in series.frames] for series in found] == [[*range(6, 12)], [*range(6)]]
    assert found[0].notes == ("2 dimension indices at the same place",)
