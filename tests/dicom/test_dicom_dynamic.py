"""Series that repeat a volume and were stopped or lost files: whole volumes are kept, none mixed, all reported."""

import itertools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import series_uid, write_series
from test_dicom import make_voxels, same_volume, spoil

from data_prep.dicom.source import read_source
from kvseg_monai.dicom import Skipped, find_series
from kvseg_monai.dicom.frames import Frame, frames_of
from kvseg_monai.dicom.listing import list_volumes
from kvseg_monai.dicom.stacks import Stack, stacks

AFFINE = np.diag([-1.5, -1.5, 3, 1])
SLICES, TIMES = 6, 3
Values = Callable[[int, int], dict]  # (time, slice) -> header

ATTRIBUTES: dict[str, Values] = {
    "temporal positions": lambda time, _: {"TemporalPositionIdentifier": time + 1, "InstanceNumber": 1},
    "acquisitions": lambda time, _: {"AcquisitionNumber": time + 8, "InstanceNumber": 1},
    "trigger times": lambda time, _: {"TriggerTime": 40.5 * time, "InstanceNumber": 1},
    "heart phases": lambda time, _: {"NominalCardiacTriggerDelayTime": 40.5 * time, "InstanceNumber": 1},
    "diffusion directions": lambda time, at: {
        "DiffusionGradientOrientation": [[1.0, 0, 0], [0.0, 1, 0], [0.5, 0.5, 0]][time],
        "InstanceNumber": time * SLICES + at + 1,
    },
}
RANK: dict[str, Values] = {
    "repetitions by InstanceNumber": lambda time, at: {"InstanceNumber": time * SLICES + at + 1},
    "repetitions by AcquisitionTime": lambda time, at: {
        "InstanceNumber": time * SLICES + at + 1,
        "AcquisitionTime": f"1010{10 + time}.{at:03d}000",
    },
    "repetitions by TriggerTime": lambda time, at: {
        "InstanceNumber": time * SLICES + at + 1,
        "TriggerTime": 500.0 * time + at * 50,
    },
}
GONE = {"last": range(4, 6), "first": range(2), "every other": (1, 3, 5), "one": (2,), "all but one": (0, 1, 2, 4, 5)}


def write_dynamic(folder: Path, values: Values, gone: Iterable[tuple[int, int]]) -> None:
    """Write a volume for each time, without the (time, slice) that are ``gone``."""
    for time in range(TIMES):
        uid = {"SeriesInstanceUID": series_uid("one"), "SeriesNumber": 7}
        paths = write_series(folder / f"t{time}", make_voxels(seed=time), AFFINE, **uid)
        for at, path in enumerate(paths):
            if (time, at) in set(gone):
                path.unlink()
            else:
                spoil(path, **values(time, at))


def left_out(skipped: list[Skipped]) -> list[str]:
    return [item.reason.split(": ", 1)[1] for item in skipped]


@pytest.mark.parametrize("gone", ["last", "every other"])
@pytest.mark.parametrize("name", [*ATTRIBUTES, *RANK])
def test_a_scan_that_was_stopped_keeps_its_whole_volumes(tmp_path, name, gone):
    write_dynamic(tmp_path, (ATTRIBUTES | RANK)[name], [(2, at) for at in GONE[gone]])
    found, skipped = find_series(tmp_path)
    assert [series.notes for series in found] == [(f"3 {name} at the same place",)] * 2
    for time, series in enumerate(sorted(found, key=lambda series: series.frames[0].header.name)):
        same_volume(series, make_voxels(seed=time), AFFINE)
    (item,) = skipped
    ordinal = "number 2" if name == "diffusion directions" else "the last"  # directions have no order
    assert left_out(skipped) == [f"{ordinal} of 3 {name} has {6 - len(GONE[gone])} slices of 6 and is left out"]
    assert (item.fault, item.volume[-2:]) == (False, "-2" if ordinal == "number 2" else "-3")


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("time", range(TIMES))
@pytest.mark.parametrize("name", ["temporal positions", *RANK])
def test_a_volume_that_lost_slices_takes_no_other_with_it(tmp_path, name, time, gone):
    write_dynamic(tmp_path, (ATTRIBUTES | RANK)[name], [(time, at) for at in GONE[gone]])
    found, skipped = find_series(tmp_path)
    for number, series in zip((t for t in range(TIMES) if t != time), found, strict=True):
        same_volume(series, make_voxels(seed=number), AFFINE)
    which = ("the first", "number 2", "the last")[time]
    if (time, gone) == (0, "first") and name in RANK:  # times alone do not show that the scan's first slices are gone
        name = "repetitions by InstanceNumber"
    assert left_out(skipped) == [f"{which} of 3 {name} has {6 - len(GONE[gone])} slices of 6 and is left out"]
    assert [item.fault for item in skipped] == [time != 2]  # files are lost, unless the scan was stopped


def test_it_is_reported_by_the_commands_and_is_no_fault(tmp_path, caplog):
    write_dynamic(tmp_path, ATTRIBUTES["temporal positions"], [(2, at) for at in GONE["last"]])
    prepared = read_source(tmp_path, labels=None, split_gaps=False, keep_ids=False, name=None)
    assert (len(prepared.scans), prepared.failed) == (2, {})
    sentence = "the last of 3 temporal positions has 4 slices of 6 and is left out"
    assert sum(sentence in remark for remark in prepared.remarks) == 1
    with caplog.at_level(logging.WARNING):
        assert len(list_volumes(tmp_path)) == 2
    assert caplog.text.count(sentence) == 1


def test_several_that_are_short_are_reported_each(tmp_path):
    """Where the last two have no place in common, no place has as many slices as there are times."""
    gone = [*((1, at) for at in range(2, 6)), *((2, at) for at in range(4))]
    write_dynamic(tmp_path, ATTRIBUTES["temporal positions"], gone)
    found, skipped = find_series(tmp_path)
    same_volume(found[0], make_voxels(seed=0), AFFINE)
    assert len(found) == 1
    assert left_out(skipped) == [
        "number 2 of 3 temporal positions has 2 slices of 6 and is left out",
        "the last of 3 temporal positions has 2 slices of 6 and is left out",
    ]


def test_parts_that_are_asked_for_are_kept(tmp_path):
    write_dynamic(tmp_path, ATTRIBUTES["temporal positions"], [(2, at) for at in GONE["one"]])
    found, skipped = find_series(tmp_path, split_gaps=True)
    assert [series.shape[2] for series in found] == [6, 6, 2, 3]
    assert found[2].notes[1:] == ("5 slices where most have 6", "2 parts between gaps")
    assert not skipped


def test_echoes_of_a_stopped_scan_keep_what_each_has_whole(tmp_path):
    for time, echo in itertools.product(range(TIMES), (1, 2)):
        values = {"SeriesInstanceUID": "1.2.3", "EchoNumbers": echo, "TemporalPositionIdentifier": time}
        paths = write_series(tmp_path / f"{time}{echo}", make_voxels(seed=2 * time + echo), AFFINE, **values)
        for path in paths[4:] if (time, echo) == (2, 2) else []:
            path.unlink()
    found, skipped = find_series(tmp_path)
    assert len(found) == 5
    for series, seed in zip(found, (1, 3, 5, 2, 4), strict=True):
        same_volume(series, make_voxels(seed=seed), AFFINE)
    assert left_out(skipped) == ["the last of 3 temporal positions has 4 slices of 6 and is left out"]


def test_images_of_two_types_need_not_cover_the_same_places(tmp_path):
    for kind, count in (("M", 6), ("ADC", 4)):
        values = {"SeriesInstanceUID": "1.2.3", "ImageType": ["ORIGINAL", "PRIMARY", kind]}
        write_series(tmp_path / kind, make_voxels()[:, :, :count], AFFINE, **values)
    found, skipped = find_series(tmp_path)
    assert sorted(series.shape[2] for series in found) == [4, 6]
    assert "4 slices where most have 6" in next(series.notes for series in found if series.shape[2] == 4)
    assert not skipped


# No repetition is ever mixed, whatever is lost and in whatever order it was scanned.


def frame(place: int, facts: dict, number: int) -> Frame:
    known = {"ImagePositionPatient": [0, 0, 3.0 * place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    known |= {"PixelSpacing": [1, 1], "Rows": 4, "Columns": 4, "SOPInstanceUID": f"1.{number}", "Modality": "MR"}
    return frames_of(known | {"SeriesInstanceUID": "1.2"} | facts, Path(__file__), str(number), syntax="")[0]


def scan(rng: np.random.Generator, *, slices: int, times: int, by_slice: bool) -> list[tuple[int, int]]:
    """(time, place) of each slice, in the order of the scan."""
    even, odd = range(0, slices, 2), range(1, slices, 2)
    order = [[*range(slices)], [*range(slices)][::-1], [*even, *odd], [*odd, *even]][rng.integers(4)]
    if by_slice:
        return [(time, place) for place in order for time in range(times)]
    return [(time, place) for time in range(times) for place in order]


NUMBERS = {  # (time, place), number in the scan from 0, slices -> header
    "number": lambda pair, index, slices: {"InstanceNumber": index + 1},
    "time alone": lambda pair, index, slices: {"TriggerTime": index},
    "number from 101": lambda pair, index, slices: {"InstanceNumber": index + 101},
    "time, and number by place": lambda pair, index, slices: {
        "InstanceNumber": pair[0] * slices + pair[1] + 1,
        "TriggerTime": index,
    },
}


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("by_slice", [False, True])
def test_nothing_is_mixed(numbers, by_slice):
    rng = np.random.default_rng(5)
    whole = 0
    for _ in range(200):
        slices, times = int(rng.integers(3, 8)), int(rng.integers(2, 5))
        pairs = scan(rng, slices=slices, times=times, by_slice=by_slice)
        time = int(rng.integers(times))
        lost = {(time, int(place)) for place in rng.choice(slices, int(rng.integers(1, slices)), replace=False)}
        if by_slice:
            lost = set(pairs[len(pairs) - int(rng.integers(1, times)) :])  # stopped
        facts = {pair: NUMBERS[numbers](pair, index, slices) for index, pair in enumerate(pairs)}
        left = [pair for pair in pairs if pair not in lost]
        found = stacks([frame(pair[1], facts[pair], index) for index, pair in enumerate(left)])
        volumes = [part for part in found if isinstance(part, Stack)]
        for volume in volumes:
            assert len({left[int(one.header.name)][0] for one in volume.frames}) == 1, (left, lost)
        assert volumes or all(part.fault for part in found)
        whole += sum(len(volume.frames) == slices for volume in volumes) >= times - len({pair[0] for pair in lost})
    assert whole >= (195 if numbers in ("number", "time, and number by place") else 60), whole
