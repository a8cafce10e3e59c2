"""Weights: loaded strictly, the best kept, the last resumed."""

import json

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from kvseg_monai.checkpoints import Checkpoints, load_weights
from kvseg_monai.errors import InputError


@pytest.fixture
def weights(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_missing_weights(tmp_path):
    with pytest.raises(InputError, match="are missing, and nothing is predicted with random ones"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_unreadable_weights(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


def test_a_cut_off_file(weights):
    weights.write_bytes(weights.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_weights(nn.Linear(2, 3), weights)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (nn.Linear(2, 3, bias=False), "0 weights are missing, 1 unknown and 0 of another shape"),
        (nn.Linear(2, 4), "0 weights are missing, 0 unknown and 2 of another shape"),
        (nn.Sequential(nn.Linear(2, 3)), "2 weights are missing, 2 unknown"),
    ],
)
def test_weights_of_another_network(weights, network, sentence):
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(InputError, match=sentence):
        load_weights(network, weights)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def train(folder, scores: list[float], *, resume: bool = False) -> nn.Module:
    """Train an epoch per score; the weights are the epoch's number, the score is what validation says."""
    network = nn.Linear(1, 1, bias=False)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.metrics, evaluator.state.key_metric_name = {}, "dice"

    def step(engine: Engine, batch: int) -> None:
        nn.init.constant_(network.weight, engine.state.epoch)

    trainer = Engine(step)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        evaluator.state.epoch = engine.state.epoch
        evaluator.state.metrics["dice"] = scores[engine.state.epoch - 1]

    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    parts = {"optimizer": optimizer}
    Checkpoints(str(folder), network, parts=parts, evaluator=evaluator, resume=resume).attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    return network


def saved(folder, name: str = "model.pt") -> float:
    state = torch.load(folder / name, weights_only=True)
    return state.get("network", state)["weight"].item()


def test_the_best_and_the_last_are_kept(tmp_path):
    train(tmp_path, [0.1, 0.5, 0.3])
    assert saved(tmp_path) == 2
    assert saved(tmp_path, "last.pt") == 3


def test_a_resumed_run_knows_the_best_score_so_far(tmp_path):
    train(tmp_path, [0.1, 0.5, 0.3])
    train(tmp_path, [0, 0, 0, 0.4, 0.2], resume=True)
    assert saved(tmp_path) == 2
    assert saved(tmp_path, "last.pt") == 5
    train(tmp_path, [0, 0, 0, 0, 0, 0.6], resume=True)
    assert saved(tmp_path) == 6


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    train(tmp_path, [0.1, float("nan"), 0.05])
    assert saved(tmp_path) == 1


def test_a_run_without_a_score_keeps_its_last_weights(tmp_path):
    train(tmp_path, [float("nan"), float("nan")])
    assert saved(tmp_path) == 2


def test_earlier_weights_are_renamed_not_overwritten(tmp_path):
    train(tmp_path, [0.1, 0.2])
    train(tmp_path, [0.3])
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == 6
    assert saved(tmp_path) == 1
    assert [saved(tmp_path, name) for name in kept if name.startswith("model_")] == [2]


def test_the_record_counts_what_came_before(tmp_path):
    train(tmp_path, [0.1, 0.2])
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["epochs"], record["network"], record["parameters"]) == (2, "Linear", 1)
    (tmp_path / "training.json").write_text(json.dumps({**record, "seconds": 1000.0, "started": "then"}))
    train(tmp_path, [0, 0, 0.3], resume=True)
    resumed = json.loads((tmp_path / "training.json").read_text())
    assert (resumed["epochs"], resumed["started"]) == (3, "then")
    assert resumed["seconds"] > 1000
    train(tmp_path, [0.1])
    assert json.loads((tmp_path / "training.json").read_text())["seconds"] < 1000


def test_nothing_is_left_to_train(tmp_path):
    train(tmp_path, [0.1, 0.2])
    with pytest.raises(InputError, match="has 2 epochs already and --max_epochs is 2"):
        train(tmp_path, [0.1, 0.2], resume=True)
