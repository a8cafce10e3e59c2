"""Folders as they come: links, hidden folders, pipes, archives, copies; what is passed over is reported by kind."""

import logging
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SYNTAXES, compress, series_uid, write_series
from test_dicom import make_voxels, only, same_volume, spoil

from data_prep.dicom.source import read_source
from kvseg_monai.dicom import find_series
from kvseg_monai.dicom.listing import list_volumes, volume_at
from kvseg_monai.dicom.skipped import sentences

AFFINE = np.diag([-1.5, -1.5, 3, 1])


def reported(folder: Path) -> list[str]:
    found, skipped = find_series(folder)
    assert len(found) == 1, [str(item) for item in skipped]
    same_volume(found[0], make_voxels(), AFFINE)
    return sentences(skipped)


def link(target: Path, at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(os.path.relpath(target, at.parent))


# Links.


@pytest.mark.parametrize("store", [".git/annex/objects/Xz/MD5E-s9--{}.dcm/MD5E-s9--{}.dcm", "../blobs/{}"])
def test_links_to_files_are_followed_wherever_they_lead(tmp_path, store):
    """As git-annex keeps its files, and a hub its cache: the name that says something is the link's."""
    for number, path in enumerate(write_series(tmp_path / "scan", make_voxels(), AFFINE)):
        content = tmp_path / "data" / store.replace("{}", f"{number:032x}")
        content.parent.mkdir(parents=True, exist_ok=True)
        path.rename(content)
        link(content, tmp_path / "data" / "sub-01" / f"slice{number}")
    assert reported(tmp_path / "data") == (["1 folder: hidden, not searched (first: .git/)"] if "git" in store else [])
    series = only(tmp_path / "data")
    assert {frame.header.name for frame in series.frames} == {f"sub-01/slice{number}" for number in range(6)}


def test_a_link_to_a_folder_is_followed_once(tmp_path):
    write_series(tmp_path / "outside" / "deep", make_voxels(), AFFINE)
    for name in ("a", "b"):
        link(tmp_path / "outside", tmp_path / "in" / name)
    link(tmp_path / "in" / "a" / "deep", tmp_path / "in" / "c")
    assert reported(tmp_path / "in") == ["2 folders: another name of what is read already (first: b/)"]


def test_links_that_lead_in_a_circle_end(tmp_path):
    write_series(tmp_path / "up" / "in" / "scan", make_voxels(), AFFINE)
    link(tmp_path / "up" / "in", tmp_path / "up" / "in" / "scan" / "again")
    link(tmp_path / "up", tmp_path / "up" / "in" / "above")
    os.symlink(".", tmp_path / "up" / "in" / "here")
    link(tmp_path / "aside", tmp_path / "up" / "in" / "aside")
    link(tmp_path / "up" / "in", tmp_path / "aside" / "back")
    os.symlink("itself", tmp_path / "up" / "in" / "itself.txt")
    os.symlink("itself.txt", tmp_path / "up" / "in" / "itself")
    lost, circle, nowhere = reported(tmp_path / "up" / "in")
    assert lost.startswith("itself: a link leads nowhere")
    assert nowhere == "1 file: a link that leads nowhere (first: itself.txt)"
    assert circle == "4 folders: a link back to a folder that holds it, not followed (first: above/)"


def test_a_file_with_two_names_is_there_once(tmp_path):
    paths = write_series(tmp_path / "in", make_voxels(), AFFINE)
    link(paths[1], tmp_path / "in" / "AAA")
    os.link(paths[2], tmp_path / "in" / "hard")
    assert reported(tmp_path / "in") == ["2 files: another name of what is read already (first: AAA)"]
    assert "AAA" not in {frame.header.name for frame in only(tmp_path / "in").frames}


def test_a_link_that_leads_nowhere_is_a_fault(tmp_path):
    """Else a volume whose last slices were not fetched would be short in silence."""
    write_series(tmp_path / "in", make_voxels(), AFFINE)
    for name in ("x.dcm", "y", "letter.txt"):
        link(tmp_path / "gone", tmp_path / "in" / name)
    fault, rule = reported(tmp_path / "in")
    assert fault.startswith("x.dcm: a link (and 1 more) leads nowhere; fetch what it names")
    assert rule == "1 file: a link that leads nowhere (first: letter.txt)"


def test_a_source_that_is_a_link(tmp_path):
    paths = write_series(tmp_path / "scan", make_voxels(), AFFINE)
    link(tmp_path / "scan", tmp_path / "folder")
    link(paths[0], tmp_path / "file")
    same_volume(volume_at(tmp_path / "folder"), make_voxels(), AFFINE)
    assert volume_at(tmp_path / "file").shape == (7, 5, 1)


# What is no file, and what is not searched.


def test_pipes_and_sockets_are_never_opened(tmp_path):
    write_series(tmp_path / "in", make_voxels(), AFFINE)
    os.mkfifo(tmp_path / "in" / "pipe")
    link(tmp_path / "in" / "pipe", tmp_path / "in" / "to_pipe")
    os.symlink("/dev/zero", tmp_path / "in" / "zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "in" / "socket"))
        assert reported(tmp_path / "in") == ["4 files: a device, pipe or socket, which is not opened (first: pipe)"]
        assert find_series(tmp_path / "in" / "pipe")[0] == []


def test_hidden_folders_are_not_searched_and_hidden_files_are(tmp_path):
    paths = write_series(tmp_path / "in", make_voxels(), AFFINE)
    shutil.copytree(tmp_path / "in", tmp_path / "in" / ".kvseg_monai" / "copy")
    paths[0].rename(tmp_path / "in" / ".slice")
    assert reported(tmp_path / "in") == ["1 folder: hidden, not searched (first: .kvseg_monai/)"]
    (tmp_path / ".cache").mkdir()
    (tmp_path / "in").rename(tmp_path / ".cache" / "scan")
    assert len(reported(tmp_path / ".cache" / "scan")) == 1  # the user named it


NAMES = (
    "a.txt",
    "B.TXT",
    "scans.zip",
    "s.tar.gz",
    "s.7z",
    "slice.dcm.gz",
    "1.2.840.113",
    "README",
    "x.nii.gz",
    "y.nii",
)
KINDS = "2 .txt, 2 .gz, 2 without ending, 1 .zip, 1 .7z, 1 .nii.gz, 1 .nii; archives are not opened, unpack them"


def test_what_is_not_dicom_is_counted_by_ending(tmp_path, caplog):
    write_series(tmp_path / "in", make_voxels(), AFFINE)
    for name in NAMES:
        (tmp_path / "in" / name).write_text("no image")
    (sentence,) = reported(tmp_path / "in")
    for kind in KINDS.replace(";", ",").split(", "):
        assert kind in sentence
    assert sentence.startswith("10 files: not a DICOM file (")
    remarks = read_source(tmp_path / "in", labels=None, split_gaps=False, keep_ids=False, name=None).remarks
    assert list(remarks) == [f"left out: {sentence}"]
    with caplog.at_level(logging.WARNING):
        list_volumes(tmp_path / "in")
    assert caplog.text.count("left out: 8 files: not a DICOM file (") == 1  # those of NIfTI are read


def test_no_sentence_grows_with_the_number_of_endings(tmp_path):
    write_series(tmp_path / "in", make_voxels(), AFFINE)
    for number in range(30):
        (tmp_path / "in" / f"file.x{number}y").write_text("no image")
    (sentence,) = reported(tmp_path / "in")
    assert "22 others" in sentence
    assert len(sentence) < 200


# Copies.


def copy_of(path: Path, **values: object) -> Path:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    spoil(copy, **values)
    return copy


def test_a_copy_in_another_form_is_a_copy(tmp_path):
    paths = write_series(tmp_path, make_voxels((40, 30, 6)), AFFINE)
    compress(copy_of(paths[1], PatientID="anonymous"), SYNTAXES["JPEGLSLossless"])
    series, skipped = find_series(tmp_path)
    same_volume(series[0], make_voxels((40, 30, 6)), AFFINE)
    assert [item.reason for item in skipped] == ["a second copy of a slice"]


def test_a_damaged_copy_is_reported(tmp_path):
    paths = write_series(tmp_path, make_voxels(), AFFINE)
    (tmp_path / "A").write_bytes(paths[3].read_bytes()[:-20])
    assert reported(tmp_path) == ["1 file: a second copy of a slice, damaged (first: A)"]


@pytest.mark.parametrize("change", ["values", "rescale"])
def test_the_same_uid_with_other_values_is_no_copy(tmp_path, change):
    """A tool that gave processed images the UIDs of their source; which of both is meant cannot be known."""
    paths = write_series(tmp_path, make_voxels(), AFFINE)
    pixels = pydicom.dcmread(paths[1]).PixelData
    copy_of(paths[1], **{"PixelData": pixels[::-1]} if change == "values" else {"RescaleSlope": 2})
    found, skipped = find_series(tmp_path)
    assert found == []
    assert "2 slices lie at the same place, fewer at others" in skipped[0].reason
    assert skipped[0].fault


def test_one_uid_for_all_slices_of_a_dynamic_series(tmp_path):
    for time in range(3):
        values = {"SeriesInstanceUID": series_uid("one"), "TemporalPositionIdentifier": time + 1}
        for path in write_series(tmp_path / str(time), make_voxels(seed=time), AFFINE, **values):
            spoil(path, SOPInstanceUID="1.2.3")
    found, skipped = find_series(tmp_path)
    assert skipped == []
    for time, series in enumerate(found):
        same_volume(series, make_voxels(seed=time), AFFINE)
    assert len(found) == 3
