"""Which files of a plain folder are scans, by which names, and how the others are counted."""

import os
import socket
from pathlib import Path

import pytest

from kvseg_monai.data.readers import NiftiReader
from kvseg_monai.data.search import LABEL_MAP, as_sentence, find_nifti
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write
from kvseg_monai.utils.records import RECORD


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_nifti(folder)[0]]


def reported(folder: Path) -> str:
    return as_sentence(find_nifti(folder)[1])


def test_other_endings_are_counted_by_kind(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.NII.GZ", "c.NII", "d.mgz", "deep/e.mgz", "f.img", "f.hdr", "g.tar.gz", "h.Nii.gz")
    touch(tmp_path, "README", "im.1.2.840.10008")
    assert names(tmp_path) == ["a.nii.gz", "b.NII.GZ", "c.NII"]
    assert reported(tmp_path) == (
        "2 *.mgz (first: d.mgz), 2 without an ending (first: README), 1 *.Nii.gz (first: h.Nii.gz), "
        "1 *.hdr (first: f.hdr), 1 *.img (first: f.img), 1 *.tar.gz (first: g.tar.gz)"
    )


def test_many_kinds_make_no_endless_line(tmp_path):
    touch(tmp_path, *(f"a.x{number:02}" for number in range(40)))
    assert reported(tmp_path).endswith("1 *.x09 (first: a.x09), 30 of 30 other kinds (first: a.x10)")


def test_hidden_files_and_folders_are_no_data(tmp_path):
    touch(tmp_path, "a.nii.gz", "._a.nii.gz", "__MACOSX/._a.nii.gz", "Thumbs.db", ".ipynb_checkpoints/a.nii")
    touch(tmp_path, "sub/.git/annex/b.nii.gz", ".partial-7-a.nii.gz")
    assert names(tmp_path) == ["a.nii.gz"]
    assert reported(tmp_path) == "6 hidden (first: ._a.nii.gz)"
    assert names(touch(tmp_path / ".cache" / "hub", "a.nii.gz")) == ["a.nii.gz"]  # above, they do not count


def test_links_to_files_have_their_own_names(tmp_path):
    touch(tmp_path, "in/.git/annex/objects/KEY/KEY.nii.gz", "store/blob", "in/real.nii.gz")
    (tmp_path / "in" / "sub").mkdir()
    for name, target in {
        "sub/annex.nii.gz": "../.git/annex/objects/KEY/KEY.nii.gz",
        "hub1.nii.gz": "../store/blob",
        "hub2.nii.gz": tmp_path / "store" / "blob",
    }.items():
        (tmp_path / "in" / name).symlink_to(target)
    assert names(tmp_path / "in") == ["hub1.nii.gz", "hub2.nii.gz", "real.nii.gz", "sub/annex.nii.gz"]


def test_a_link_that_leads_nowhere_is_reported_by_its_name(tmp_path):
    (tmp_path / "gone.nii.gz").symlink_to(".git/annex/objects/KEY")
    (tmp_path / "round.nii.gz").symlink_to("round.nii.gz")
    assert names(tmp_path) == ["gone.nii.gz", "round.nii.gz"]
    for name in names(tmp_path):
        with pytest.raises(InputError, match=f"{name} is a link to .*, which is not there; fetch that file"):
            NiftiReader().get_data((str(tmp_path / name),))


def test_linked_folders_are_searched_once_and_loops_cut(tmp_path):
    touch(tmp_path, "in/b/x.nii", "other/y.nii", "other/deep/z.nii", "above.nii")
    for name, target in {
        "in/a": "b",
        "in/c": "../other",
        "in/d": "../other",
        "in/b/loop": "..",
        "in/up": "..",
        "other/back": "../in",
        "other/up": "..",
        "in/self": "self",
    }.items():
        (tmp_path / name).symlink_to(target)
    assert names(tmp_path / "in") == ["b/x.nii", "c/deep/z.nii", "c/y.nii"]


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    touch(tmp_path, "a.nii.gz/a.nii")  # as some archives unpack
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "null.nii").symlink_to(os.devnull)
    (tmp_path / "linked.nii.gz").symlink_to("pipe.nii.gz")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(tmp_path)  # a socket's path may have 107 letters only
            unix.bind("s.nii")
        finally:
            os.fchdir(here)
            os.close(here)
    assert names(tmp_path) == ["a.nii.gz/a.nii"]
    assert reported(tmp_path) == "4 device or pipe (first: linked.nii.gz)"
    with pytest.raises(InputError, match="is no regular file; give one"):
        NiftiReader().get_data((str(tmp_path / "pipe.nii.gz"),))


def test_label_maps_of_an_earlier_run_are_no_scans_and_prepared_images_are(tmp_path):
    for name, kind in (("seg/a.nii.gz", LABEL_MAP), ("images/a.nii.gz", None)):
        with atomic_write(tmp_path / name, kind=kind) as temporary:
            temporary.write_text(name)
    (tmp_path / "seg" / "a.nii.gz").write_text("corrected by hand")
    (tmp_path / "seg" / RECORD).open("a").write('{"file": ["x"], "sha256": 5, "kind": "label map"}\n[]\n{"fi')
    assert names(tmp_path) == ["images/a.nii.gz"]
    assert "1 label map made by kvseg_monai (first: seg/a.nii.gz)" in reported(tmp_path)
