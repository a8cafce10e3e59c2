"""Names, numbers and colours of the labels come from one place: bundles, MONAI Label, DICOM SEG and report agree."""

import json

import pytest
import yaml
from dicom_files import write_series
from seg_objects import image, labels, oblique, write
from support import BUNDLES, ROOT

from kvseg_monai.label.segments import describe_segments
from kvseg_monai.utils.labels import CODES, colour_of, colours_of

LABELS = {name: value for value, name in enumerate(CODES, start=1)}


def test_the_bundles_are_rendered_from_the_labels_that_have_codes():
    assert yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())["labels"] == ["background", *CODES]


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_name_the_channels_so(name):
    metadata = json.loads((ROOT / "bundles" / name / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert {label: int(value) for value, label in channels.items()} == {"background": 0, **LABELS}


def test_the_server_sends_the_colours_of_the_report():
    colours = colours_of({"background": 0, **LABELS})
    assert {name: f"#{bytes(colours[name]).hex()}" for name in colours} == {
        name: colour_of(index) for index, name in enumerate(CODES)
    }


def test_dicom_seg_has_the_same_names_numbers_and_colours(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    write_series(tmp_path / "series", image(), oblique())
    made, _ = write(tmp_path / "series", labels(), oblique())
    found = {segment.SegmentLabel: segment for segment in made.SegmentSequence}
    assert {name: segment.SegmentNumber for name, segment in found.items()} == LABELS
    for name, colour in colours_of(LABELS).items():
        expected = highdicom.color.CIELabColor.from_rgb(*colour)
        assert list(found[name].RecommendedDisplayCIELabValue) == list(expected.value)


def test_monai_label_gets_the_segments_that_occur():
    """MONAI Label would call label 3, the second that occurs, by the second name."""
    sent = [{"name": name} for name in CODES]
    first, third = describe_segments([1, 3], LABELS, sent)
    assert (first["name"], third["name"]) == ("large_bowel", "stomach")
    stomach = third["segmentAttribute"]
    assert (stomach["labelID"], stomach["recommendedDisplayRGBValue"]) == (3, colours_of(LABELS)["stomach"])
    assert stomach["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == CODES["stomach"].value
    assert [entry["name"] for entry in describe_segments([4, 5], LABELS, [*sent, {"name": "liver"}])] == [
        *("liver", "segment 5"),
    ]
