"""What a command says of mistakes, of a disk that cannot be used, and of defects."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from kvseg_monai.errors import InputError, run_command, runs_a_command


def fill_the_disk():
    with Path("/dev/full").open("w") as file:
        file.write("text")


def refuse():
    raise InputError("a.txt is empty; fill it")


def reported(main, capsys) -> str:
    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    return capsys.readouterr().err


def test_a_mistake_is_one_sentence(capsys):
    assert reported(refuse, capsys) == "error: a.txt is empty; fill it\n"


def test_a_file_on_the_way_to_the_target_is_reported(tmp_path, capsys):
    (tmp_path / "file").touch()
    sentence = reported(lambda: (tmp_path / "file" / "target").write_text("text"), capsys)
    assert sentence.startswith(
        f"error: {tmp_path}/file/target cannot be used (Not a directory); a file and a folder are"
    )
    assert sentence.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_reported(capsys):
    assert reported(fill_the_disk, capsys) == (
        "error: a file cannot be used (No space left on device); free some space, or name another place\n"
    )


def test_a_defect_keeps_its_traceback():
    with pytest.raises(FileNotFoundError, match="none"):
        run_command(lambda: Path("none").read_text())


@pytest.mark.parametrize(
    ("raised", "code", "last"),
    [
        ("RuntimeError('transform') from InputError('a.txt is empty; fill it')", 2, "error: a.txt is empty; fill it"),
        (
            "RuntimeError('transform') from PermissionError(13, 'Permission denied', 'b.txt')",
            2,
            "error: b.txt cannot be used (Permission denied); get the right to use it, or name another place",
        ),
        ("RuntimeError('ours')", 1, "RuntimeError: ours"),
    ],
)
def test_the_hook_of_the_bundles_does_the_same(raised, code, last):
    """In a process that is ``kvseg``, as the name of its script says."""
    ended = ended_by(raised, "kvseg")
    assert (ended.returncode, ended.stderr.strip().splitlines()[-1]) == (code, last)


def ended_by(raised: str, name: str) -> subprocess.CompletedProcess:
    """What a script of that name says of an exception, after the call that the bundles' configurations make."""
    program = (
        f"import sys; sys.argv = ['/bin/{name}', 'run']\n"
        f"from kvseg_monai.errors import *; show_input_errors_as_sentences(); raise {raised}"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_in_any_other_process_a_mistake_is_an_ordinary_exception():
    ended = ended_by("InputError('a.txt is empty; fill it')", "jupyter")
    assert (ended.returncode, ended.stderr.count("Traceback")) == (1, 1)
    assert ended.stderr.endswith("InputError: a.txt is empty; fill it\n")


@pytest.mark.parametrize(
    ("module", "arguments", "answer"),
    [
        ("monai.bundle.__main__", ["/lib/monai/bundle/__main__.py", "run", "--config_file", "a.json"], True),
        ("monai.bundle.__main__", ["/lib/monai/bundle/__main__.py", "ckpt_export"], False),
        ("kvseg_monai.__main__", ["/lib/kvseg_monai/__main__.py", "train"], True),
        (None, ["/venv/bin/kvseg", "train"], True),
        (None, ["C:/venv/Scripts/kvseg.exe", "train"], True),
        ("kvseg_monai.study.arm", ["/lib/kvseg_monai/study/arm.py"], False),
        ("monailabel.main", ["/lib/monailabel/main.py", "run"], False),
        ("pytest.__main__", ["/lib/pytest/__main__.py", "run"], False),
        (None, ["/venv/bin/pytest", "run"], False),
        (None, ["-c"], False),
        (None, [""], False),
    ],
)
def test_which_processes_are_commands(module, arguments, answer, monkeypatch):
    main = ModuleType("__main__")
    main.__spec__ = module and ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", arguments)
    assert runs_a_command() is answer


def test_a_command_that_is_asked_to_end_leaves_no_process_behind():
    program = (
        "import time; from data_prep.common.parallel import as_done; from kvseg_monai.errors import run_command\n"
        "run_command(lambda: [print(i, flush=True) for i, _ in as_done(time.sleep, [0.05] * 5000, workers=2)])"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True) as process:
        assert process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
