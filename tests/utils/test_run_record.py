"""What a run records of itself."""

import json

import pytest
import torch
from support import BUNDLES, config
from torch import nn

from kvseg_monai.utils.run_record import RunRecord, bundle_run

RUN = ["/somewhere/monai/bundle/__main__.py", "run"]


def facts_of(*options: str) -> dict:
    return bundle_run([*RUN, "--config_file", config(BUNDLES[0], "evaluate"), *options])


def test_overrides_and_settings_without_places():
    facts = facts_of(
        *(
            "--dataset_dir",
            "/home/anna/data",
            "--network_def#size",
            "tiny",
            "--spacing=[2.0,2.0]",
            "--amp",
            "--seed",
            "3",
        ),
        *("--network_def#pretrained", "/home/anna/weights.pt", "--volumes", "[{'image': '/home/anna/scan.nii'}]"),
    )
    assert facts["bundle"] == BUNDLES[0]
    assert facts["overrides"] == {
        **{"network_def#size": "tiny", "spacing": [2.0, 2.0], "amp": True, "seed": 3},
        **{"network_def#pretrained": "weights.pt", "volumes": [{"image": "scan.nii"}]},
    }
    assert (facts["settings"]["seed"], facts["settings"]["spacing"]) == (3, [2.0, 2.0])
    assert facts["settings"]["image_size"] == [256, 256]
    assert facts["settings"]["network_def"]["size"] == "tiny"
    assert len(facts["configuration"]["evaluate.json"]) == 16
    assert "anna" not in json.dumps(facts_of("--dataset_dir", "/home/anna/data"))


def test_the_hash_is_that_of_the_file():
    of_kinds = [facts_of()["configuration"], bundle_run([*RUN, "--config_file", config(BUNDLES[1], "evaluate")])]
    assert of_kinds[0] != of_kinds[1]["configuration"]
    assert facts_of()["configuration"] == facts_of("--seed", "3")["configuration"]


def test_several_files_are_merged():
    files = [config(BUNDLES[0], name) for name in ("train", "multi_gpu_train")]
    facts = bundle_run([*RUN, "training", "--config_file", str(files)])
    assert list(facts["configuration"]) == ["train.json", "multi_gpu_train.json"]
    assert facts["settings"]["max_epochs"] == 100


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c"],
        ["/usr/bin/pytest", "run", "--config_file", config(BUNDLES[0], "train")],
        [*RUN[:1], "verify_metadata", "--config_file", config(BUNDLES[0], "train")],
        [*RUN, "--config_file", "nowhere.json"],
        RUN,
    ],
)
def test_any_other_process_records_nothing(arguments):
    assert bundle_run(arguments) == {}


def test_time_goes_on_after_an_interruption():
    earlier = {"started": "2020-01-01 00:00 UTC", "seconds": 100.0}
    facts = RunRecord(nn.Linear(2, 3), "cpu", earlier=earlier).facts()
    assert facts["started"] == earlier["started"]
    assert 100.0 <= facts["seconds"] < 110
    assert (facts["network"], facts["parameters"]) == ("Linear", 9)
    assert facts["versions"]["torch"] == torch.__version__
    assert "network" not in RunRecord(None).facts()
