"""A file appears whole under its name, or not at all."""

import pytest
from support import names_in

from kvseg_monai.errors import InputError
from kvseg_monai.files import whole_file


def test_the_file_appears_when_the_block_is_done(tmp_path):
    path = tmp_path / "new" / "folder" / "a.nii.gz"
    with whole_file(path) as temporary:
        temporary.write_text("text")
        assert temporary.parent == path.parent
        assert temporary.suffixes == [".nii", ".gz"]
        assert temporary.name.startswith(".")
        assert not path.exists()
    assert (names_in(path.parent), path.read_text()) == (["a.nii.gz"], "text")


def write_half(path):
    with whole_file(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")


def test_a_failed_block_leaves_the_old_file_and_no_rest(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(tmp_path / "a.txt")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_block_that_writes_nothing_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.txt"), whole_file(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file/a.txt", "file/folder/a.txt"):
        with pytest.raises(InputError, match="is not a folder but a file; give another"), whole_file(tmp_path / path):
            pass
    with pytest.raises(InputError, match="is a folder; give the name of a file"), whole_file(tmp_path):
        pass
