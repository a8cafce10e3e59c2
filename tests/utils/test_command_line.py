"""What MONAI's command line makes of a value: every switch, number and path is used as it was meant, or refused."""

import argparse
import re
from collections.abc import Iterator

import pytest
from monai.bundle import ConfigParser, create_workflow
from monai.handlers import ValidationHandler
from support import BUNDLES, ONE_PER_NET, ROOT, config, run

from kvseg_monai.bundle.overrides import parse_with_overrides
from kvseg_monai.errors import InputError
from kvseg_monai.handlers.checkpoints import Checkpoints
from kvseg_monai.utils.command_line import check_overrides
from kvseg_monai.utils.flags import as_flag

WORKFLOWS = ("train", "evaluate", "inference")
SWITCHES = {
    "train": {"resume", "skip_bad_cases", "validate_first"},
    "multi_gpu_train": {"resume", "skip_bad_cases", "validate_first"},
    "evaluate": {"tta", "save_probabilities", "calibration"},
    "inference": {"overwrite", "tta", "save_probabilities"},
}


def configuration(workflow: str, bundle: str = BUNDLES[0]) -> ConfigParser:
    parser = ConfigParser()
    files = ["train", workflow] if workflow == "multi_gpu_train" else [workflow]
    parser.read_config([config(bundle, name) for name in files])
    return parser


def check(workflow: str, **options: str) -> None:
    check_overrides(configuration(workflow), {name.replace("__", "#"): text for name, text in options.items()})


def booleans(part: object, name: str = "") -> Iterator[str]:
    """The ids of all values that are true or false."""
    if isinstance(part, bool):
        yield name
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from booleans(value, f"{name}#{key}" if name else str(key))


@pytest.mark.parametrize("value", [True, "true", "True", "YES", "on", 1, "1"])
def test_a_switch_that_is_on(value):
    assert as_flag(value, "amp") is True


@pytest.mark.parametrize("value", [False, "false", "False", "no", "OFF", 0, "0"])
def test_a_switch_that_is_off(value):
    assert as_flag(value, "amp") is False


@pytest.mark.parametrize("value", ["", "maybe", 2, None, "none", [], "fasle"])
def test_a_switch_that_is_neither(value):
    with pytest.raises(InputError, match=r"--amp is .*; it must be true or false"):
        as_flag(value, "amp")


@pytest.mark.parametrize("bundle", ONE_PER_NET)
@pytest.mark.parametrize("workflow", [*WORKFLOWS, "multi_gpu_train"])
def test_no_boolean_takes_false_for_true(workflow, bundle):
    """Of those at the top ``SWITCHES`` is the list; the others, arguments of a class, do not take text."""
    parser = configuration(workflow, bundle)
    found = set(booleans(parser.config))
    assert {name for name in found if "#" not in name} == SWITCHES[workflow]
    for name in found:
        check_overrides(parser, {name: "False"})
        if "#" in name:
            with pytest.raises(InputError, match=f"--{name} is 'false', which Python takes for true; write True or"):
                check_overrides(parser, {name: "false"})


@pytest.mark.parametrize("text", ["false", "no", "0", 0, False])
def test_every_switch_that_is_off_is_off_where_it_is_used(text, tmp_path, tiny_dataset):
    def built(workflow: str, name: str, **switches: object):
        kind = {"workflow_type": "train" if workflow == "train" else "inference"}
        places = {"bundle_root": str(tmp_path), "dataset_dir": str(tiny_dataset)}
        small = {"network_def#size": "tiny", "image_size": [64, 64]}
        made = create_workflow(config_file=config(BUNDLES[0], workflow), **kind, **places, **small, **switches)
        return made.parser.get_parsed_content(name)

    handlers = built("train", "train#handlers", **dict.fromkeys(SWITCHES["train"], text))
    assert [handler.resume for handler in handlers if isinstance(handler, Checkpoints)] == [False]
    validation = [handler for handler in handlers if isinstance(handler, ValidationHandler)]
    assert [handler.exec_at_start for handler in validation] == [False]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"linear": "mkl", "spacng": "[3,3]"}, "--spacng is no option of this configuration; did you mean --spacing?"),
        ({"network_def__size": "3"}, "--network_def#size 3 is read as 3; it must be text, as base"),
        ({"train__trainer__max_epochs_": "3", "train_": "3"}, "--train_ is no option .* did you mean --train?"),
        ({"resume": "ture"}, "--resume is 'ture'; it must be true or false"),
        ({"cache_rate": "0,5"}, r"--cache_rate is '0,5'; it must be a number, as 1\.0"),
        ({"val_interval": "abc"}, "--val_interval is 'abc'; it must be a number, as 4"),
        ({"learning_rate": "nan"}, "--learning_rate is 'nan'; it must be a number"),
        ({"learning_rate": "1e999"}, "--learning_rate is '1e999'; it must be a number"),
        ({"seed": "True"}, "--seed is 'True'; it must be a number, as 0"),
        ({"image_size": "64"}, r"--image_size is '64'; it must be numbers in brackets, as \[256,256\]"),
        ({"spacing": "abc"}, r"--spacing is 'abc'; it must be numbers in brackets, as \[1.5,1.5\]"),
        ({"dataset_dir": "2023"}, r"--dataset_dir 2023 is read as 2023, not as a path; write it as \./2023"),
        ({"dataset_dir": "2023_01"}, r"--dataset_dir 2023_01 is read as 202301, not as a path; write it as \./2023_01"),
        ({"ckpt_dir": "1.50"}, r"--ckpt_dir 1\.50 is read as 1\.5, not as a path"),
        ({"amp": "True"}, "--amp is no option of this configuration; did you mean --precision?"),
    ],
)
def test_values_of_another_kind_and_unknown_names(options, sentence):
    with pytest.raises(InputError, match=sentence):
        check("train", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16", "resume": "true", "max_epochs": "2", "learning_rate": "1e-3", "spacing": "[2,2]"},
        {"image_size": "(64,64)", "dataset_dir": "./2023", "device": "$torch.device('cpu')", "num_workers": "0"},
        {"network_def__patch_size": "8", "train__trainer__amp_kwargs": "{}", "run_id": "run", "loss__batch": "False"},
        {"my_rate": "0.1", "learning_rate": "@my_rate"},
        {"tracking": "mlflow", "tracking_uri": "somewhere"},
        {"train__dataset__cache_rate": "0.5", "max_epochs": "$1 + 1"},
    ],
)
def test_values_that_are_right(options):
    check("train", **options)


def test_documented_options_are_options():
    """The options in the bundle's own card, with their defaults."""
    card = (ROOT / "bundles" / BUNDLES[0] / "docs" / "README.md").read_text()
    names = {
        part.split("`")[0] for line in card.splitlines() if line.startswith("| `--") for part in line.split("`--")[1:]
    }
    assert len(names) > 10
    for name in names:
        takers = [workflow for workflow in WORKFLOWS if not _refused(workflow, name)]
        assert takers, name


def _refused(workflow: str, name: str) -> bool:
    try:
        check_overrides(configuration(workflow), {name: "$1"})
    except InputError:
        return True
    return False


def test_a_user_gets_one_sentence(tmp_path, tiny_dataset):
    result = run(BUNDLES[0], "inference", tmp_path, tiny_dataset, "--spacng", "[3,3]")
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert result.stderr.strip().splitlines()[-1].startswith("error: --spacng is no option of inference.json; did")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False)
    made.add_argument("bundle")
    made.add_argument("--weights", nargs="+")
    made.add_argument("--overwrite", action="store_true")
    return made


@pytest.mark.parametrize(
    "line",
    [
        "setr_kv --weights a b --overwrite --network_def#size tiny --image-size [64,64] --rate -1 --amp",
        "--network_def#size tiny --overwrite setr_kv --weights a b --image_size=[64,64] --rate=-1 --amp",
        "--amp --rate -1 --image_size [64,64] --network_def#size big --weights a b --network_def#size tiny -- setr_kv",
    ],
)
def test_overrides_are_distinguished_from_the_commands_own_options_wherever_they_stand(line):
    options = vars(parse_with_overrides(parser(), line.split()))
    overrides = {"network_def#size": "tiny", "image_size": [64, 64], "rate": -1, "amp": True}
    own = {"bundle": "setr_kv", "weights": ["a", "b"], "overwrite": "--overwrite" in line}
    assert options == {**own, "overrides": overrides}


@pytest.mark.parametrize("line", ["--network_def#size tiny", "setr_kv also --network_def#size tiny"])
def test_a_value_of_an_override_is_no_word_of_the_command(line, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_with_overrides(parser(), line.split())
    assert re.search(
        "the following arguments are required: bundle|unrecognized arguments: also", capsys.readouterr().err
    )
