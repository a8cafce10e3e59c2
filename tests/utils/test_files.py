"""A file appears whole under its name, or not at all, and never in the place of what somebody else wrote."""

import pytest
from support import names_in

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write, discard, edit_text, refuse_foreign, write_text
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.records import RECORD, begin_record, recorded


def test_the_file_appears_when_the_block_is_done(tmp_path):
    path = tmp_path / "new" / "folder" / "a.nii.gz"
    with atomic_write(path) as temporary:
        temporary.write_text("text")
        assert temporary.parent == path.parent
        assert temporary.suffixes == [".nii", ".gz"]
        assert temporary.name.startswith(".")
        assert not path.exists()
    assert (names_in(path.parent), path.read_text()) == (["a.nii.gz"], "text")


def write_half(path):
    with atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")


def test_a_failed_block_leaves_the_old_file_and_no_rest(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(tmp_path / "a.txt")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_block_that_writes_nothing_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.txt"), atomic_write(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file/a.txt", "file/folder/a.txt"):
        with pytest.raises(InputError, match="is not a folder but a file; give another"), atomic_write(tmp_path / path):
            pass
    with pytest.raises(InputError, match="is a folder; give the name of a file"), atomic_write(tmp_path):
        pass


def test_only_what_we_wrote_and_nobody_changed_is_replaced(tmp_path):
    path = write_text(tmp_path / "a.txt", "one")
    write_text(path, "two")
    path.write_text("changed by hand")
    for act in (lambda: write_text(path, "three"), lambda: discard(path), lambda: refuse_foreign([path])):
        with pytest.raises(InputError, match=r"a\.txt is there and was not written by kvseg_monai, or was changed"):
            act()
    assert path.read_text() == "changed by hand"
    path.write_text("two")  # as it was written
    write_text(path, "changed by hand")
    discard(path)
    assert names_in(tmp_path) == []


def test_without_a_record_all_is_the_users(tmp_path):
    path = write_text(tmp_path / "a.txt", "one")
    (tmp_path / RECORD).unlink()
    with pytest.raises(InputError, match="was not written by kvseg_monai"):
        write_text(path, "two")
    write_text(path, "one")  # what is there already needs no writing
    write_text(path, "two", keep=True)
    assert sorted(file.read_text() for file in tmp_path.glob("*.txt")) == ["one", "two"]


def test_one_record_serves_a_folder_and_those_below(tmp_path):
    begin_record(tmp_path)
    path = write_text(tmp_path / "images" / "deep" / "a.txt", "one")
    write_text(path, "two")
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob(RECORD)] == [RECORD]
    assert recorded(path.parent).keys() == {"a.txt"}
    path.write_text("changed by hand")
    with pytest.raises(InputError, match="was not written by kvseg_monai"):
        write_text(path, "three")


def test_a_record_of_one_folder_says_nothing_of_those_below(tmp_path):
    write_text(tmp_path / "page.html", "one")
    write_text(tmp_path / "below" / "a.txt", "one")
    assert recorded(tmp_path).keys() == {"page.html"}
    assert recorded(tmp_path / "below").keys() == {"a.txt"}


def test_the_same_text_again_adds_nothing_to_the_record(tmp_path):
    for text in ("one", "two", "one", "one"):
        write_text(tmp_path / "a.txt", text)
    assert len((tmp_path / RECORD).read_text().splitlines()) == 2


def test_a_link_is_never_ours(tmp_path):
    path = write_text(tmp_path / "a.txt", "one")
    (tmp_path / "b.txt").symlink_to(path)
    with pytest.raises(InputError, match=r"b\.txt is there and was not written"):
        write_text(tmp_path / "b.txt", "two")
    (tmp_path / "mine").write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / RECORD).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="is no file; there is kept what was written into its folder"):
        write_text(tmp_path / "linked" / "c.txt", "three")
    assert ((tmp_path / "mine").read_text(), names_in(tmp_path / "linked")) == ("", [])


def test_a_file_that_is_changed_on_demand_stays_the_users(tmp_path):
    mine = tmp_path / "mine.md"
    mine.write_text("before")
    mine.chmod(0o640)
    (tmp_path / "link.md").symlink_to(mine)
    edit_text(tmp_path / "link.md", "after")
    assert (mine.read_text(), mine.stat().st_mode & 0o777) == ("after", 0o640)
    assert (tmp_path / "link.md").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.md", "mine.md"]


@pytest.mark.parametrize(
    ("source", "target", "link", "relation"),
    [
        ("a", "a", None, "is the same as"),
        ("a", "a/b", None, "lies in"),
        ("a/b", "a", None, "contains"),
        ("a", "c/a", ("c", "."), "is the same as"),
        ("a", "c", ("c/link", "a/b"), "holds a link into"),
        ("a/b", "c", ("c/link", "a"), "holds a link into"),
        ("a", "c", ("a/link", "c"), "is linked to from"),
        ("a", "c/d", ("a/b/link", "c"), "is linked to from"),
        ("a/file", "a", None, None),
        ("a/file", "a/file", None, "is the same as"),
        ("a", "ab", None, None),
    ],
)
def test_how_a_source_and_a_target_meet(tmp_path, source, target, link, relation):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    if link:
        place, to = (tmp_path / part for part in link)
        (tmp_path / "c" / "d").mkdir(parents=True) if place.name == "link" else None
        place.symlink_to(to)
    places = {"sources": {"source": tmp_path / source}, "targets": {"target": tmp_path / target}}
    if relation is None:
        refuse_overlap(**places)
    else:
        with pytest.raises(InputError, match=f"--target .* {relation} --source .*; what is written must lie apart"):
            refuse_overlap(**places)
