"""Federated learning by MONAI's own client, MonaiAlgo: what it trains and scores are the weights that it is given."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from support import ROOT, make_volume
from torch import Tensor

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.checkpoints import LAST
from kvseg_monai.utils.model_files import BEST

BUNDLE = "setr_kv_segmentation"
CASES = {"training": 2, "validation": 1, "test": 1}
SMALL = {
    "network_def#size": "tiny",
    "image_size": [64, 64],
    "slices_at_once": 4,
    "num_workers": 0,
    "spacing": [3.0, 3.0],
}
KEPT = {"final_model_filepath": f"models/{LAST}", "save_dict_key": "network"}

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config")


def make_site(folder: Path, first: int) -> Path:
    """A client's folder: volumes of its own, from number ``first`` on, a copy of the bundle, and a model of its own."""
    datalist: dict = {}
    for section, count in CASES.items():
        datalist[section] = []
        for _ in range(count):
            entry = {"patient": f"person{first}"}
            for kind, array in zip(("image", "label"), make_volume(first, (40, 36, 4)), strict=True):
                path = folder / "data" / f"{kind}s" / f"case{first}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.diag([3.0, 3.0, 4.0, 1.0])), path)
                entry[kind] = str(path.relative_to(folder / "data"))
            datalist[section].append(entry)
            first += 1
    (folder / "data" / "datalist.json").write_text(json.dumps(datalist))
    shutil.copytree(ROOT / "bundles" / BUNDLE / "configs", folder / "bundle" / "configs")
    (folder / "bundle" / "models").mkdir()
    torch.save(random_weights(folder, seed=first), folder / "bundle" / "models" / BEST)
    return folder


def options(folder: Path) -> dict:
    return {**SMALL, "dataset_dir": str(folder / "data")}


def workflow(folder: Path, name: str, kind: str, **overrides):
    path = folder / "bundle" / "configs" / f"{name}.json"
    return create_workflow(config_file=str(path), workflow_type=kind, **options(folder), **overrides)


def random_weights(folder: Path, seed: int) -> dict[str, Tensor]:
    network = workflow(folder, "train", "train", seed=seed).parser.get_parsed_content("network_def")
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def start_client(
    folder: Path, *, train: Mapping | None = None, ensemble: list[str] | None = None, **settings
) -> MonaiAlgo:
    client = MonaiAlgo(
        bundle_root="bundle",
        train_kwargs={**options(folder), **(train or {})},
        eval_kwargs={**options(folder), **({"ckpt_path": ensemble} if ensemble else {})},
        **{**KEPT, **settings},
    )
    client.initialize({ExtraItems.APP_ROOT: str(folder), ExtraItems.CLIENT_NAME: folder.name})
    return client


def score(folder: Path, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """What the bundle's own evaluation makes of weights in a file."""
    path = folder / "given.pt"
    torch.save(weights, path)
    where = {"bundle_root": str(folder / "bundle"), "ckpt_path": str(path), "output_dir": str(folder / "scored")}
    made = workflow(folder, "evaluate", "infer", **where)
    made.run()
    return dict(made.parser.get_parsed_content("evaluator").state.metrics)


def given(weights: Mapping[str, Tensor]) -> ExchangeObject:
    """A message of the server, with weights of its own: a client may change what it is sent."""
    return ExchangeObject(weights={name: weight.clone() for name, weight in weights.items()})


def mean(states: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Federated averaging; a count of batches stays a whole number."""
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    return {name: values.double().mean(0).to(values.dtype) for name, values in stacked.items()}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def same_scores(left: Mapping[str, float], right: Mapping[str, float]) -> bool:
    return set(left) == set(right) and all(np.array_equal(left[name], right[name], equal_nan=True) for name in left)


@pytest.fixture
def sites(tmp_path) -> list[Path]:
    return [make_site(tmp_path / name, first) for name, first in (("north", 0), ("south", 10))]


def train_from(client: MonaiAlgo, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Train a round, and return the weights that it began with."""
    seen: list[dict] = []

    def keep(engine) -> None:
        seen.append({name: weight.clone() for name, weight in engine.network.state_dict().items()})

    with client.trainer.add_event_handler(Events.EPOCH_STARTED, keep):
        client.train(given(weights))
    return seen[0]


def test_two_clients_train_two_rounds_and_score_the_weights_they_are_given(sites):
    own = [torch.load(site / "bundle" / "models" / BEST, weights_only=True) for site in sites]
    clients = [start_client(site, train={"rounds": 2}, send_weight_diff=False) for site in sites]
    weights = random_weights(sites[0], seed=100)
    for _ in range(2):
        trained = []
        for client in clients:
            assert same(train_from(client, weights), weights)
            message = client.get_weights()
            assert message.weight_type == WeightType.WEIGHTS
            trained.append({name: weight.clone() for name, weight in message.weights.items()})
            assert not same(trained[-1], weights)
        weights = mean(trained)
    for site, client, before, last in zip(sites, clients, own, trained, strict=True):
        found = client.evaluate(given(weights)).metrics
        assert same_scores(found, score(site, weights))
        assert found["val_mean_dice"] != score(site, before)["val_mean_dice"]
        assert same(client.get_weights({ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights, last)

        # One run of two epochs, not two runs: the model that was there is kept once, and nothing else is set aside.
        best = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        models = {path.name: torch.load(path, weights_only=True) for path in (site / "bundle" / "models").glob("*.pt")}
        assert same(models[BEST], best)
        assert sum(same(before, state) for state in models.values()) == 1
        assert len(models) == 2
        assert [path.name for path in (site / "bundle" / "models").glob("*.ckpt")] == [LAST]
        assert client.trainer.state.epoch == 2
        client.finalize()


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ("default", "train"),
        ("configs/evaluate.json", "train"),
        ("configs/evaluate.json", "infer"),
        ("configs/inference.json", "infer"),
    ],
)
@pytest.mark.parametrize("with_file", [True, False])
def test_given_weights_are_scored_whatever_file_is_there(files, kind, with_file, sites):
    site = sites[0]
    if not with_file:
        (site / "bundle" / "models" / BEST).unlink()
    client = start_client(site, config_train_filename=None, config_evaluate_filename=files, eval_workflow_name=kind)
    for seed in (100, 101):  # a second message wins over the first
        weights = random_weights(site, seed=seed)
        metrics = client.evaluate(given(weights)).metrics
        assert same(client.evaluator.network.state_dict(), weights)
        if "inference" not in files:
            assert same_scores(metrics, score(site, weights))


def test_given_weights_are_scored_alone_whatever_ensemble_the_site_uses(sites):
    site = sites[0]
    paths = [site / "bundle" / "models" / name for name in (BEST, "other.pt")]
    torch.save(random_weights(site, seed=7), paths[1])
    client = start_client(
        site,
        config_train_filename=None,
        config_evaluate_filename="configs/evaluate.json",
        eval_workflow_name="infer",
        ensemble=[str(path) for path in paths],
    )
    weights = random_weights(site, seed=100)
    assert same_scores(client.evaluate(given(weights)).metrics, score(site, weights))


def test_weight_differences_lead_from_what_was_given_to_what_was_trained(sites):
    client = start_client(sites[0], config_evaluate_filename=None)
    weights = random_weights(sites[0], seed=100)
    client.train(given(weights))
    message = client.get_weights()
    assert message.weight_type == WeightType.WEIGHT_DIFF
    trained = client.trainer.network.state_dict()
    assert any(difference.abs().sum() > 0 for difference in message.weights.values())
    for name, difference in message.weights.items():
        torch.testing.assert_close(weights[name] + difference, trained[name])


def test_a_client_that_is_started_again_trains_from_the_given_weights(sites):
    """A new process: the handler meets what an earlier one left; resume, which would load it, is refused."""
    weights = random_weights(sites[0], seed=100)
    start_client(sites[0], config_evaluate_filename=None).train(given(weights))
    models = sites[0] / "bundle" / "models"
    before = (models / LAST).read_bytes()
    with pytest.raises(InputError, match=r"the network was given weights.*leave resume out"):
        train_from(
            start_client(sites[0], train={"resume": True}, local_epochs=3, config_evaluate_filename=None), weights
        )
    assert (models / LAST).read_bytes() == before
    again = start_client(sites[0], config_evaluate_filename=None)
    assert same(train_from(again, weights), weights)
    assert before in [path.read_bytes() for path in models.glob("last*.ckpt")]


def test_the_learning_rate_falls_over_all_rounds(sites):
    client = start_client(sites[0], train={"rounds": 3, "warmup": 0.0}, config_evaluate_filename=None)
    rates = []
    for _ in range(3):
        client.train(given(random_weights(sites[0], seed=100)))
        rates.append(client.trainer.optimizer.param_groups[0]["lr"])
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[1] > rates[2]
