"""An option that no configuration knows is refused with the nearest that exists, under MONAI's own runner too."""

import json
import shlex
import sys

import monai.bundle
import pytest
from monai.bundle import ConfigParser
from support import BUNDLES, ROOT, config, run

from kvseg_monai.bundle.unknown_options import check_options, lay_over, refuse_unknown_options, signature_of
from kvseg_monai.errors import InputError
from kvseg_monai.utils.run_options import read_mapping, read_options

BUNDLE = "setr_kv_segmentation"
EXAMPLES = ROOT / "bundles" / "examples"
TRAIN, EVALUATE, INFERENCE = ([config(BUNDLE, name)] for name in ("train", "evaluate", "inference"))
UNETR = [*TRAIN, str(EXAMPLES / "unetr.json")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "bundles").rglob("*.md"))]


def check(files: list[str], *names: str) -> None:
    check_options({"config_file": files, **dict.fromkeys(names, 1)}, arguments_of=signature_of)


@pytest.mark.parametrize(
    ("files", "name", "sentence"),
    [
        (TRAIN, "max_epoch", r"--max_epoch is no option of train\.json; did you mean --max_epochs\?"),
        (TRAIN, "spacng", r"did you mean --spacing\?"),
        (TRAIN, "netwrk_def#size", r"did you mean --network_def#size\?"),
        (TRAIN, "size", r"did you mean --network_def#size\?"),
        (TRAIN, "qqq", r"--qqq is no option of train\.json; its docs/README\.md lists the options"),
        (TRAIN, "train#trainr#max_epochs", r"did you mean --train#trainer#max_epochs\?"),
        (TRAIN, "train#trainr", r"did you mean --train#trainer\?"),
        (TRAIN, "train#handlers#20#seed", r"--train#handlers#20#seed is no option of train\.json"),
        (TRAIN, "network_def#sizze", r"did you mean --network_def#size\?"),
        (TRAIN, "network_def::sizze", r"did you mean --network_def#size\?"),
        (TRAIN, "network_def#patchsize", r"did you mean --network_def#patch_size\?"),  # not named in the configuration
        (TRAIN, "loss#include_backgrund", r"did you mean --loss#include_background\?"),  # MONAI's by its short name
        (TRAIN, "train#trainer#max_epoch", r"did you mean --train#trainer#max_epochs\?"),
        (TRAIN, "seed#x", r"seed is 0, which has no parts"),
        (EVALUATE, "max_epochs", r"--max_epochs is no option of evaluate\.json"),
        (
            UNETR,
            "network_def#hidden_size",
            r"train\.json and unetr\.json; network_def is '@stock_network', so give --stock_",
        ),
        (UNETR, "stock_network#hidden_sise", r"did you mean --stock_network#hidden_size\?"),
    ],
)
def test_what_nothing_takes_is_refused_with_the_nearest(files, name, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        check(files, name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (TRAIN, ["max_epochs", "network_def#patch_size", "train::trainer::max_epochs", "train#handlers#0#seed"]),
        (TRAIN, ["loss#include_background", "optimizer#betas", "loss#_disabled_", "_meta_#name", "initialize"]),
        (TRAIN, ["meta_file", "logging_file", "run_id", "init_id", "final_id", "args_file", "workflow_type"]),
        ([*TRAIN, config(BUNDLE, "multi_gpu_train")], ["train#sampler#shuffle", "network#module", "validate#sampler"]),
        (UNETR, ["stock_network#hidden_size", "stock_network"]),
        ([*INFERENCE, str(EXAMPLES / "dicom_seg.json")], ["codes", "postprocessing#transforms#1#algorithm_name"]),
        ([*TRAIN, str(EXAMPLES / "from_weights.json")], ["weights", "initialize#3"]),
    ],
)
def test_what_something_takes_passes(files, names):
    check(files, *names)


def test_a_component_that_takes_anything_is_not_checked(tmp_path):
    (tmp_path / "a.json").write_text('{"net": {"_target_": "DistributedSampler", "dataset": [], "extra": {"a": 1}}}')
    check([str(tmp_path / "a.json")], "net#whatever", "net#extra#b")


def test_what_an_earlier_option_made_may_be_changed(tmp_path):
    check_options({"config_file": INFERENCE, "spacing": {"x": 1}, "spacing#x": 2})
    with pytest.raises(InputError, match=r"did you mean --spacing#x\?|no option"):
        check_options({"config_file": INFERENCE, "spacing": {"x": 1}, "spacing#y": 2})


def test_tracking_has_options_of_its_own():
    with pytest.raises(InputError, match="--tracking_uri is no option"):
        check(TRAIN, "tracking_uri")
    check(TRAIN, "tracking", "tracking_uri", "experiment_name", "run_name")
    settings = monai.bundle.utils.DEFAULT_EXP_MGMT_SETTINGS["mlflow"]
    check(TRAIN, "tracking", *(set(settings["configs"]) - set(settings["handlers_id"])))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_configurations_are_laid_over_each_other_as_by_monai(bundle):
    for names in (["train"], ["train", "multi_gpu_train"], ["inference"], ["evaluate"]):
        files = [config(bundle, name) for name in names]
        assert lay_over(map(read_mapping, files)) == ConfigParser.load_config_files(files)


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.json")))
def test_examples_are_laid_over_a_bundle_as_by_monai(example):
    base = INFERENCE if example == "dicom_seg" else [*TRAIN, *([str(EXAMPLES / "kv.json")] if "kv_" in example else [])]
    files = [*base, str(EXAMPLES / f"{example}.json")]
    assert lay_over(map(read_mapping, files)) == ConfigParser.load_config_files(files)


def test_no_documented_option_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for file in DOCUMENTS for line in file.read_text().splitlines() if "-m monai.bundle run " in line]
    complete = [line for line in lines if line.startswith("    ") and "$" not in line and "config_file bundles" in line]
    assert len(complete) > 30
    for line in complete:
        words = shlex.split(line)
        check_options(read_options(words[words.index("run") + 1 :]))


def test_the_check_reads_the_command_line_of_monais_runner_alone(monkeypatch, tmp_path):
    wrong = ["run", "--config_file", TRAIN[0], "--max_epoch", "2"]
    monkeypatch.setattr(sys, "argv", ["/bin/monailabel", *wrong])
    refuse_unknown_options()
    monkeypatch.setattr(sys, "argv", [monai.bundle.__path__[0] + "/__main__.py", *wrong])
    with pytest.raises(InputError, match="did you mean --max_epochs"):
        refuse_unknown_options()
    args = tmp_path / "args.json"
    args.write_text(json.dumps({"config_file": TRAIN[0], "spacng": 1}))
    monkeypatch.setattr(sys, "argv", [monai.bundle.__path__[0] + "/__main__.py", "run", "--args_file", str(args)])
    with pytest.raises(InputError, match="did you mean --spacing"):
        refuse_unknown_options()


def test_under_plain_monai_it_is_one_sentence_before_any_work(tmp_path, tiny_dataset):
    result = run(BUNDLE, "train", tmp_path, tiny_dataset, "--max_epoch", "2")
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: --max_epoch is no option of train.json; did you mean --max_epochs?"]
    assert result.stderr.endswith(errors[0] + "\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]


@pytest.mark.parametrize("name", ["train", "multi_gpu_train", "evaluate", "inference"])
def test_every_configuration_checks_after_the_hook_that_makes_it_a_sentence(name):
    for bundle in BUNDLES:
        initialize = read_mapping(config(bundle, name))["initialize"]
        assert initialize.index({"_target_": "kvseg_monai.bundle.refuse_unknown_options"}) == 1
