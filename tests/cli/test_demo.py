"""``kvseg demo``: steps that are done once; the whole of it runs in test_wheel."""

import pytest

from kvseg_monai.cli.demo import QUICK, STEPS, Step, main, run_steps
from kvseg_monai.errors import InputError

# Real programs that take no time: zipfile writes, lists, and fails where there is nothing.
WRITE = Step("zipfile --create {target}/made.zip {source}", "made.zip")
LIST = Step("zipfile --list {target}/made.zip", ".listed", stamp=True)
FAIL = Step("zipfile --list {target}/absent.zip", ".failed", stamp=True)


@pytest.fixture
def values(tmp_path) -> dict:
    (tmp_path / "a file.txt").write_text("text")
    return {"source": tmp_path / "a file.txt"}


def test_each_step_prints_its_line_and_runs_once(tmp_path, values, capfd):
    assert run_steps([WRITE, LIST], tmp_path, values) == 0
    printed = capfd.readouterr().out
    assert f"-m zipfile --create {tmp_path}/made.zip '{tmp_path}/a file.txt'\n" in printed
    assert "a file.txt " in printed
    assert (tmp_path / ".listed").read_text() == ""
    assert run_steps([WRITE, LIST], tmp_path, values) == 0
    assert capfd.readouterr().out == ""


def test_a_step_that_fails_stops_and_is_run_again(tmp_path, values, capfd):
    assert run_steps([WRITE, FAIL, LIST], tmp_path, values) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file.txt", "made.zip"]
    (tmp_path / "made.zip").rename(tmp_path / "absent.zip")
    assert run_steps([FAIL], tmp_path, values) == 0
    assert (tmp_path / ".failed").exists()


def test_every_step_leaves_what_the_next_needs():
    lines = [" ".join(step.words(target="T", bundle="B", **QUICK)) for step in STEPS]
    assert [line.split()[0] for line in lines] == [
        *("data_prep.phantom", "data_prep.uw_madison", *["monai.bundle"] * 3, "kvseg_monai.report"),
    ]
    assert "--resume true" in lines[2]
    assert all("--ckpt_dir T/models" in line for line in lines[2:5])


def test_a_quick_demo_never_passes_for_the_other(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match="holds a demo without --quick, which is another one"):
        main(["--quick", "--target", str(tmp_path)])
    (tmp_path / ".quick").touch()
    with pytest.raises(InputError, match="holds a demo with --quick, which is another one; give another --target"):
        main(["--target", str(tmp_path)])
