"""The command ``kvseg``: its table, its help, what it says to a command that it does not have."""

import subprocess
import sys

import pytest
from support import ROOT

from kvseg_monai.cli.commands import COMMANDS, GROUPS, Command
from kvseg_monai.cli.main import main, make_group, run
from kvseg_monai.errors import InputError


def test_help_lists_the_table_and_imports_nothing_heavy():
    line = [sys.executable, "-X", "importtime", "-m", "kvseg_monai", "--help"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {row.rpartition("|")[2].strip().partition(".")[0] for row in result.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "monai", "numpy", "fire", "data_prep"}
    listed = result.stdout.split("Commands:\n")[1]
    assert [row.split()[0] for row in listed.splitlines()] == list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    assert all(command.help in listed for name, command in COMMANDS.items() if " " not in name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_goes_by_its_name(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        run([*name.split(), "--help"])
    words = capsys.readouterr().out.split()
    assert words[:3] == ["usage:", "kvseg", name.split()[0]]


def test_groups_hold_what_the_table_says():
    names = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    assert names == set(GROUPS)
    assert list(make_group().commands["prepare"].commands) == ["dicom", "nifti", "png_pairs", "uw_madison"]


def test_words_are_handed_on_as_they_are():
    table = {"show it": Command("help", "kvseg_monai.utils.run_options", "read_options")}
    words = ["--help", "--network_def#size=tiny", "-1", "--", "--x"]
    group = make_group(table, {"show": "help"})
    chosen = group.main(["show", "it", *words], standalone_mode=False)
    assert chosen() == {"help": True, "network_def#size": "tiny"}  # Fire leaves out what follows "--"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], r"kvseg has no command 'trian'; did you mean kvseg train\?"),
        (["bundle"], r"did you mean kvseg bundles\?"),
        (["xyz"], "kvseg has no command 'xyz'; kvseg --help lists them"),
        (["prepare", "dicm"], r"kvseg prepare has no command 'dicm'; did you mean kvseg prepare dicom\?"),
        (["prepare", "uw"], r"did you mean kvseg prepare uw_madison\?"),
        (["--versoin"], "No such option.*; kvseg --help lists the commands"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(words, sentence):
    with pytest.raises(InputError, match=sentence):
        run(words)


def test_a_mistake_is_one_sentence_and_exit_code_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])
    assert capsys.readouterr().err == "error: kvseg has no command 'trian'; did you mean kvseg train?\n"


def test_dashes_in_a_command_are_underscores(capsys):
    with pytest.raises(SystemExit, match="2"):
        run(["prepare", "png-pairs", "--target"])
    assert "kvseg prepare png_pairs: error: argument --target: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["prepare"]])
def test_no_command_shows_what_there_is(words, capsys):
    assert run(words) == 0
    assert "Commands:" in capsys.readouterr().out
