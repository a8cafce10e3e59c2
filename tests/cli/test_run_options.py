"""MONAI's command line is read as MONAI reads it: Fire itself is asked."""

import inspect
import json

import fire
import monai.bundle
import pytest
from monai.bundle import ConfigWorkflow, create_workflow

from kvseg_monai.errors import InputError
from kvseg_monai.utils.run_options import RUN_OPTIONS, read_mapping, read_options, run_options

PROGRAM = ["/somewhere/monai/bundle/__main__.py", "run"]


def by_fire(words: list[str]) -> dict:
    """What Fire gives a function with ``run``'s own arguments and any others."""

    def take(run_id=None, config_file=None, **override):
        own = {"run_id": run_id, "config_file": config_file}
        return {**{name: value for name, value in own.items() if value is not None}, **override}

    return fire.Fire(take, command=list(words), serialize=lambda result: "")


@pytest.mark.parametrize(
    "words",
    [
        ["--max_epochs", "5", "--spacing", "[2.0,2.0]", "--network_def#size", "tiny"],
        ["--max-epochs=5", "--dataset-dir", "a-b/c", "--network-def#size=tiny"],
        ["--amp", "--seed", "3", "--resume"],
        ["--noamp", "--seed", "3", "--nothing", "1"],
        ["--rate", "-1e-3", "-seed", "3", "-s", "-4"],
        ["--config_file", "['a.json','b.json']", "--x", "{a: 1}", "--y", "$None", "--z=a=b", "--text", "a b"],
        ["--image_size", "(64,64)", "--none", "None", "--yes", "true", "--zero", "007", "--empty="],
        ["--seed", "1", "--seed", "2", "--", "--verbose"],
    ],
)
def test_options_are_those_of_fire(words):
    assert read_options(words) == by_fire(words)


def test_the_runs_own_options_are_monais():
    functions = (monai.bundle.run, create_workflow, ConfigWorkflow.__init__)
    names = {name for function in functions for name in inspect.signature(function).parameters}
    assert set(RUN_OPTIONS) == names - {"override", "kwargs", "self"}


def test_the_args_file_gives_defaults(tmp_path):
    file = tmp_path / "args.json"
    file.write_text(json.dumps({"config_file": "a.json", "seed": 1, "amp": True}))
    options = run_options([*PROGRAM, "--args_file", str(file), "--seed", "2"])
    assert options == {"args_file": str(file), "config_file": "a.json", "seed": 2, "amp": True}


@pytest.mark.parametrize(
    "arguments", [["-c"], ["/usr/bin/pytest", "run"], [PROGRAM[0], "verify_metadata"], PROGRAM[:1]]
)
def test_any_other_process_has_none(arguments):
    assert run_options(arguments) is None
    assert run_options(PROGRAM) == {}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "{", r"a\.json is no valid configuration \(.*\); correct it"),
        ("a.yaml", "a: [", r"a\.yaml is no valid configuration \(.*\); correct it"),
        ("a.json", "[1]", r"a\.json holds no names and values"),
        ("a.json", None, r"a\.json is missing; give a configuration"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, name, text, sentence):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_mapping(tmp_path / name)


def test_both_formats_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": {"b": 1}}')
    (tmp_path / "a.yaml").write_text("a:\n  b: 1\n")
    assert read_mapping(tmp_path / "a.json") == read_mapping(tmp_path / "a.yaml") == {"a": {"b": 1}}
