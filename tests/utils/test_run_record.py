"""What a run records of itself: the same whoever runs it."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from support import BUNDLES, ROOT, config
from torch import nn

from kvseg_monai.utils.run_record import RunRecord, hash_file

TINY = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4}
KINDS = {"train": "train", "evaluate": "infer", "multi_gpu_train": "train"}


def files(name: str) -> list[str]:
    return [config(BUNDLES[0], file) for file in (["train", name] if name == "multi_gpu_train" else [name])]


def facts_of(name: str = "evaluate", **overrides: object) -> dict:
    """What a workflow's ``record`` is, of which nothing else is built."""
    return opened(files(name), KINDS[name], **overrides).initialize()[0]


def opened(paths: list[str], kind: str, **overrides: object) -> ConfigWorkflow:
    return ConfigWorkflow(paths, workflow_type=kind, init_id="record", logging_file=False, **overrides)


def test_without_overrides():
    facts = facts_of()
    assert (facts["bundle"], facts["overrides"]) == (BUNDLES[0], {})
    assert facts["configuration"] == {"evaluate.json": hash_file(config(BUNDLES[0], "evaluate"))}
    assert facts["settings"]["section"] == "test"
    assert "max_steps" not in facts_of("train")["settings"]


def test_overrides_and_settings_without_places():
    facts = facts_of(
        **{"network_def#size": "tiny", "spacing": (2.0, 2.0), "amp": True, "seed": 3, "section": "test"},
        **{"dataset_dir": "/home/anna/data", "network_def#pretrained": "/home/anna/weights.pt"},
        **{"codes": "$torch.load('/home/anna k/codes.pt') or 1/2/3 or 'C:\\anna\\codes.pt'", "ckpt_path": "anna.pt"},
        **{"volumes": [{"image": "/home/anna/scan.nii"}], "device": torch.device("cpu"), "loss": nn.MSELoss()},
    )
    assert facts["overrides"] == {
        **{"network_def#size": "tiny", "spacing": [2.0, 2.0], "amp": True, "seed": 3, "device": "cpu"},
        **{"network_def#pretrained": "weights.pt", "volumes": "1 cases", "loss": "MSELoss"},
        "codes": "$torch.load('codes.pt') or 1/2/3 or 'codes.pt'",
    }
    assert (facts["settings"]["seed"], facts["settings"]["spacing"]) == (3, [2.0, 2.0])
    assert facts["settings"]["image_size"] == [256, 256]
    assert facts["settings"]["network_def"]["size"] == "tiny"
    assert "anna" not in json.dumps(facts)


def test_what_monai_label_and_federated_clients_set():
    """They set the epochs on the trainer, the cases on the datasets and flags on handlers."""
    handlers = json.loads(Path(config(BUNDLES[0], "train")).read_text())["train"]["handlers"]
    handlers[1]["_disabled_"] = True
    facts = facts_of(
        "train", **{"train#trainer#max_epochs": 7, "train#dataset#data": [{"image": "anna.nii"}] * 3},
        **{"train#handlers": handlers, "bundle_root": "/home/anna"},
    )  # fmt: skip
    assert facts["settings"]["max_epochs"] == 7
    assert facts["overrides"] == {
        **{"train#trainer#max_epochs": 7, "train#dataset#data": "3 cases", "train#handlers#1#_disabled_": True},
    }


def test_several_files_are_the_bundles_own():
    facts = facts_of("multi_gpu_train", max_epochs=3)
    assert list(facts["configuration"]) == ["train.json", "multi_gpu_train.json"]
    assert (facts["overrides"], facts["settings"]["max_epochs"]) == ({"max_epochs": 3}, 3)


def test_a_file_laid_over_the_bundle_is_recorded():
    unetr = ROOT / "bundles" / "examples" / "unetr.json"
    facts = opened([*files("train"), str(unetr)], "train").initialize()[0]
    assert set(facts["overrides"]) == {"stock_network", "network_def", "num_classes"}
    assert facts["settings"]["network_def"]["_target_"] == "UNETR"


def test_a_bare_parser_knows_no_bundle_and_a_configuration_elsewhere_no_file(tmp_path):
    parser = ConfigParser()
    parser.read_config(config(BUNDLES[0], "evaluate"))
    assert list(parser.get_parsed_content("record")) == ["settings"]
    own = Path(shutil.copy(config(BUNDLES[0], "evaluate"), tmp_path / "mine.json"))
    assert list(opened([str(own)], "infer").initialize()[0]) == ["bundle", "settings"]


def by_command_line(monkeypatch, options: dict[str, object]) -> None:
    """`python -m monai.bundle run`, in this process."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value).replace(" ", ""))]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--config_file", config(BUNDLES[1], "train"), *words])
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def test_the_command_line_and_create_workflow_leave_the_same_record(tmp_path, tiny_dataset, monkeypatch):
    def options(folder: str) -> dict[str, object]:
        return {**TINY, "max_epochs": 1, "bundle_root": str(tmp_path / folder), "dataset_dir": str(tiny_dataset)}

    hook = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", hook)
    by_command_line(monkeypatch, options("command"))
    assert sys.excepthook is not hook  # the main program is the command
    monkeypatch.undo()
    made = create_workflow(config_file=config(BUNDLES[1], "train"), workflow_type="train", **options("workflow"))
    assert sys.excepthook is hook
    made.run()
    records = [
        json.loads((tmp_path / name / "models" / "training.json").read_text()) for name in ("command", "workflow")
    ]
    for record in records:
        assert record.pop("seconds") > 0
        assert record.pop("started")
        assert str(tmp_path) not in json.dumps(record)
    assert records[0] == records[1]
    assert records[0]["overrides"] == {**TINY, "max_epochs": 1}
    assert (records[0]["bundle"], records[0]["epochs"], records[0]["steps"]) == (BUNDLES[1], 1, 1)


def test_time_goes_on_after_an_interruption():
    earlier = {"started": "2020-01-01 00:00 UTC", "seconds": 100.0}
    facts = RunRecord(nn.Linear(2, 3), "cpu", earlier=earlier, configuration={"bundle": "b"}).facts()
    assert facts["started"] == earlier["started"]
    assert 100.0 <= facts["seconds"] < 110
    assert (facts["network"], facts["parameters"], facts["bundle"]) == ("Linear", 9, "b")
    assert facts["versions"]["torch"] == torch.__version__
    assert "network" not in RunRecord(None).facts()
