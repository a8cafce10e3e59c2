"""Weights: loaded strictly, the best kept, the last resumed."""

import json
import os
import re

import pytest
import torch
from ignite.engine import Engine, Events
from support import names_in
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.checkpoints import Checkpoints
from kvseg_monai.utils.old_names import CHECKPOINT
from kvseg_monai.utils.records import RECORD
from kvseg_monai.utils.weights import load_weights, save_whole
from kvseg_monai.utils.weights_file import read_weights


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


class Evaluator(Engine):
    """What a MONAI evaluator is to :class:`Checkpoints`: its score is what ``judge`` says of the epoch."""

    def __init__(self, judge) -> None:
        super().__init__(lambda engine, batch: None)
        self.judge = judge
        self.state.metrics, self.state.key_metric_name = {}, "dice"
        self.add_event_handler(Events.EPOCH_COMPLETED, self._score)

    def run(self, epoch: int) -> None:
        self.state.max_epochs, self.state.epoch, self.state.iteration = max(epoch, 1), epoch - 1, 0
        super().run([0], max_epochs=self.state.max_epochs)

    def _score(self) -> None:
        self.state.metrics["dice"] = self.judge(self.state.epoch)


def train(
    folder, scores: list[float], *, resume: bool = False, earlier: float = 0.0, breaks: bool = False
) -> nn.Module:
    """Train an epoch per score; the weights are the epoch's number, the score is what validation says.

    ``earlier`` is the score of a model that was there; where training breaks, it does so in a further epoch.
    """
    network = nn.Linear(1, 1, bias=False)
    evaluator = Evaluator(lambda epoch: scores[epoch - 1] if epoch else earlier)

    def step(engine: Engine, batch: int) -> None:
        if engine.state.epoch > len(scores):
            raise RuntimeError("out of memory")
        nn.init.constant_(network.weight, engine.state.epoch)

    trainer = Engine(step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run(engine.state.epoch))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    parts = {"optimizer": optimizer}
    Checkpoints(str(folder), network, parts=parts, evaluator=evaluator, resume=resume).attach(trainer)
    trainer.run([0], max_epochs=len(scores) + breaks)
    return network


def saved(folder, name: str = "model.pt") -> float:
    state = torch.load(folder / name, weights_only=True)
    return state.get("network", state)["weight"].item()


def test_the_best_and_the_last_are_kept(tmp_path):
    train(tmp_path, [0.1, 0.5, 0.3])
    assert saved(tmp_path) == 2
    assert saved(tmp_path, "last.ckpt") == 3


def test_a_resumed_run_knows_the_best_score_so_far(tmp_path):
    train(tmp_path, [0.1, 0.5, 0.3])
    train(tmp_path, [0, 0, 0, 0.4, 0.2], resume=True)
    assert saved(tmp_path) == 2
    assert saved(tmp_path, "last.ckpt") == 5
    train(tmp_path, [0, 0, 0, 0, 0, 0.6], resume=True)
    assert saved(tmp_path) == 6


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    train(tmp_path, [0.1, float("nan"), 0.05])
    assert saved(tmp_path) == 1


def test_a_run_without_a_score_keeps_its_last_weights(tmp_path):
    train(tmp_path, [float("nan"), float("nan")])
    assert saved(tmp_path) == 2


def names(folder) -> list[str]:
    """The files of a folder; a date is shown as DATE."""
    return sorted(re.sub(r"\d{8}-\d{6}", "DATE", name) for name in names_in(folder))


def test_a_better_model_takes_the_place_of_the_earlier_which_is_kept(tmp_path):
    train(tmp_path, [0.1, 0.2])
    train(tmp_path, [0.3], earlier=0.2)
    assert names(tmp_path) == [
        *("last.ckpt", "last_DATE.ckpt", "model.pt", "model.safetensors", "model_DATE.pt"),
        *("training.json", "training_DATE.json"),
    ]
    assert saved(tmp_path) == 1
    assert [saved(tmp_path, path.name) for path in tmp_path.glob("model_*.pt")] == [2]
    assert json.loads((tmp_path / "training.json").read_text())["epochs"] == 1


@pytest.mark.parametrize("score", [0.1, 0.2, float("nan")])
def test_a_training_that_ends_no_better_leaves_the_model_and_says_so(tmp_path, caplog, score):
    train(tmp_path, [0.1, 0.2])
    train(tmp_path, [score], earlier=0.2)
    assert (saved(tmp_path), saved(tmp_path, "model_candidate.pt")) == (2, 1)
    assert json.loads((tmp_path / "training.json").read_text())["epochs"] == 2
    assert json.loads((tmp_path / "training_candidate.json").read_text())["epochs"] == 1
    assert "model.pt that was there 0.2000: model.pt stays" in caplog.text


def test_a_training_that_breaks_leaves_the_model(tmp_path):
    train(tmp_path, [0.1, 0.2])
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, [0.9], earlier=0.2, breaks=True)
    assert (tmp_path / "model.pt").read_bytes() == before
    assert saved(tmp_path, "model_candidate.pt") == 1


def test_a_resumed_run_remembers_the_model_to_beat(tmp_path):
    train(tmp_path, [0.1, 0.2])
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, [0.1], earlier=0.2, breaks=True)
    train(tmp_path, [0, 0.15], resume=True)
    assert (saved(tmp_path), saved(tmp_path, "model_candidate.pt")) == (2, 2)
    train(tmp_path, [0, 0, 0.5], resume=True)
    assert saved(tmp_path) == 3
    assert "model_candidate.pt" not in names(tmp_path)


def test_a_checkpoint_of_an_older_version_is_resumed(tmp_path):
    train(tmp_path, [0.1, 0.2])
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, [0.1], earlier=0.2, breaks=True)
    names_before = {new: old for old, new in CHECKPOINT.items()}
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    older = {names_before.get(name, name): value for name, value in state.items()}
    assert older.keys() != state.keys()
    torch.save(older, tmp_path / "last.ckpt")
    train(tmp_path, [0, 0.15], resume=True)
    assert saved(tmp_path, "last.ckpt") == 2
    assert (saved(tmp_path), saved(tmp_path, "model_candidate.pt")) == (2, 2)  # 0.15 does not beat 0.2


def test_the_network_starts_as_if_no_model_were_there(tmp_path):
    train(tmp_path, [0.1, 0.2])
    network = nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    trainer = Engine(lambda engine, batch: None)
    handler = Checkpoints(str(tmp_path), network, parts={}, evaluator=Evaluator(lambda epoch: 0.2))
    handler.attach(trainer)
    trainer.add_event_handler(Events.STARTED, trainer.terminate)
    trainer.run([0], max_epochs=1)
    assert network.weight.item() == before
    assert handler.earlier_score == 0.2


def test_a_model_of_another_network_is_reported_before_the_training(tmp_path):
    save_whole(nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds the weights of another network"):
        train(tmp_path, [0.1])
    assert names(tmp_path) == ["model.pt", "model.safetensors"]


def test_names_with_a_date_do_not_collide(tmp_path):
    train(tmp_path, [0.1])
    for _ in range(3):
        train(tmp_path, [0.3], earlier=0.2)
        os.utime(tmp_path / "model.pt", (0, 0))
    assert len(list(tmp_path.glob("model_*.pt"))) == 3


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


def test_what_somebody_else_put_there_is_kept_under_another_name(tmp_path):
    """Also by a run that goes on from a folder without our record, as one that an earlier version wrote."""
    train(tmp_path, [0.1, 0.2])
    (tmp_path / RECORD).unlink()
    (tmp_path / "training.json").write_text("notes of mine")
    mine = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train(tmp_path, [0, 0, 0.3], resume=True)
    assert names(tmp_path) == sorted(
        [*mine, "last_DATE.ckpt", "model_DATE.pt", "model_DATE.safetensors", "training_DATE.json"]
    )
    there = [path.read_bytes() for path in tmp_path.iterdir()]
    assert all(content in there for content in mine.values())
    train(tmp_path, [0, 0, 0, 0.4], resume=True)
    assert len(names(tmp_path)) == 8  # from now on it is ours


def test_a_run_that_an_earlier_version_began_ends_without_safetensors(tmp_path):
    """Those of the earlier model are then passed over, since they were not written with the new one."""
    train(tmp_path, [0.2])
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, [0, 0.5], earlier=0.2, breaks=True)
    (tmp_path / "model_candidate.safetensors").unlink()
    train(tmp_path, [0, 0, 0.3], resume=True)
    assert saved(tmp_path) == 2
    assert read_weights(tmp_path / "model.pt")["weight"].item() == 2


def test_a_model_that_was_changed_since_is_kept_when_a_better_one_comes(tmp_path):
    train(tmp_path, [0.1, 0.2])
    torch.save({"weight": torch.full((1, 1), 7.0)}, tmp_path / "model.pt")
    train(tmp_path, [0.3], earlier=0.2)
    assert saved(tmp_path) == 1
    assert [saved(tmp_path, path.name) for path in tmp_path.glob("model_*.pt")] == [7]


def test_a_folder_in_the_place_of_weights_is_reported_before_the_training(tmp_path):
    (tmp_path / "model.pt").mkdir()
    with pytest.raises(InputError, match=r"model\.pt is a folder; give the name of a file"):
        train(tmp_path, [0.1])
    assert names(tmp_path) == ["model.pt"]


def test_nothing_is_left_to_train(tmp_path):
    train(tmp_path, [0.1, 0.2])
    with pytest.raises(InputError, match="has 2 epochs already and --max_epochs is 2"):
        train(tmp_path, [0.1, 0.2], resume=True)
