"""Training counted in steps: exactly so many, in epochs of any length, also after an interruption."""

import json
import re
from itertools import chain
from pathlib import Path

import pytest
import torch
from fire.parser import DefaultParseValue
from ignite.engine import Events
from monai.bundle import create_workflow
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from support import BUNDLES, config, run
from torch import nn

from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers import Checkpoints, SeedEpochs, StopAfterSteps, total_steps

LENGTH = 5  # batches of two among ten cases


class Training:
    """A real trainer of one weight, which keeps what each of its epochs showed."""

    def __init__(self, folder: Path, *, steps_per_epoch=None, max_steps=None, max_epochs=3, resume=False, breaks=0):
        torch.manual_seed(0)
        dataset = Dataset([{"image": torch.tensor([float(case)]), "label": torch.ones(1)} for case in range(10)])
        network = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        self.shown: dict[int, list[list[int]]] = {}
        self.breaks = breaks
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=max_epochs,
            train_data_loader=DataLoader(dataset, batch_size=2, shuffle=True),
            network=network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            epoch_length=steps_per_epoch,
            decollate=False,
            train_handlers=[
                SeedEpochs(dataset, seed=0),
                Checkpoints(str(folder), network, parts={"optimizer": optimizer}, resume=resume),
                StopAfterSteps(max_steps),
            ],
        )
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def keep(self, engine) -> None:
        if engine.state.iteration == self.breaks:
            raise RuntimeError("out of memory")
        self.shown.setdefault(engine.state.epoch, []).append(engine.state.batch["image"].flatten().int().tolist())

    def run(self) -> "Training":
        self.trainer.run()
        return self

    @property
    def epochs(self) -> list[int]:
        return [len(batches) for batches in self.shown.values()]


def saved(folder: Path) -> dict:
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("max_steps", "steps_per_epoch", "epochs"),
    [
        (13, None, [5, 5, 3]),
        (10, None, [5, 5]),
        (2, None, [2]),
        (1, 1, [1]),
        (7, 2, [2, 2, 2, 1]),
        (12, 12, [12]),
        (None, 2, [2, 2, 2]),
        (None, None, [5, 5, 5]),
    ],
)
def test_exactly_so_many_steps(max_steps, steps_per_epoch, epochs, tmp_path):
    """Of three epochs, where the steps do not say how many there are."""
    training = Training(tmp_path, max_steps=max_steps, steps_per_epoch=steps_per_epoch).run()
    assert training.epochs == epochs
    assert list(training.shown) == list(range(1, len(epochs) + 1))
    assert (saved(tmp_path)["iteration"], saved(tmp_path)["epoch"]) == (sum(epochs), len(epochs))
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["steps"], record["epochs"]) == (sum(epochs), len(epochs))


def test_each_epoch_has_a_new_order_of_all_cases(tmp_path):
    """A short epoch shows the first batches of its order, a long one goes on with another order."""
    whole, short, long = (
        Training(tmp_path / str(length), steps_per_epoch=length).run().shown for length in (None, 3, 2 * LENGTH + 1)
    )
    for epoch in (1, 2, 3):
        assert sorted(chain(*whole[epoch])) == list(range(10))
        assert short[epoch] == whole[epoch][:3]
        assert long[epoch][:LENGTH] == whole[epoch]
        assert sorted(chain(*long[epoch][LENGTH : 2 * LENGTH])) == list(range(10))
    assert whole[1] != whole[2]
    assert long[1][LENGTH : 2 * LENGTH] != long[1][:LENGTH]


@pytest.mark.parametrize("steps_per_epoch", [None, 3, 7])
def test_an_interrupted_training_goes_on(steps_per_epoch, tmp_path):
    options = {"steps_per_epoch": steps_per_epoch, "max_steps": 3 * (steps_per_epoch or LENGTH) - 1}
    straight = Training(tmp_path / "straight", **options).run()
    broken = Training(tmp_path / "broken", **options, breaks=2 * (steps_per_epoch or LENGTH) - 1)
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.run()
    resumed = Training(tmp_path / "broken", **options, resume=True).run()
    assert resumed.shown == {epoch: batches for epoch, batches in straight.shown.items() if epoch > 1}
    torch.testing.assert_close(saved(tmp_path / "broken")["network"], saved(tmp_path / "straight")["network"])


def test_more_steps_go_on_with_the_epoch_that_ended_early(tmp_path):
    Training(tmp_path, max_steps=13).run()
    with pytest.raises(InputError, match=r"last.ckpt has 13 steps already and --max_steps is 13; raise --max_steps"):
        Training(tmp_path, max_steps=13, resume=True).run()
    assert Training(tmp_path, max_steps=22, resume=True).run().epochs == [2, 5, 2]
    assert (saved(tmp_path)["iteration"], saved(tmp_path)["epoch"]) == (22, 5)
    with pytest.raises(InputError, match=r"last.ckpt has 4 epochs already and --max_epochs is 4; raise --max_epochs"):
        Training(tmp_path, max_epochs=4, resume=True).run()
    assert Training(tmp_path, max_epochs=5, resume=True).run().epochs == [3]


def test_steps_that_are_made_already(tmp_path):
    """A second round of federated training, where all steps were made in the first."""
    training = Training(tmp_path, max_steps=3).run()
    training.trainer.state.max_epochs = 2
    with pytest.raises(InputError, match="3 steps are made already and --max_steps is 3; raise --max_steps, which"):
        training.run()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 15),
        ({"rounds": 2}, 30),
        ({"steps_per_epoch": 7, "rounds": 2}, 42),
        ({"max_steps": 448, "rounds": 2, "steps_per_epoch": 7}, 448),
    ],
)
def test_the_schedule_spans_all_steps(options, steps):
    assert total_steps(range(LENGTH), max_epochs=3, **options) == steps


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many", [3]])
@pytest.mark.parametrize("name", ["max_steps", "steps_per_epoch"])
def test_what_is_no_number_of_steps(name, value):
    with pytest.raises(InputError, match=rf"--{name} is .*; it must be a whole number from 1 on"):
        total_steps(range(LENGTH), max_epochs=3, **{name: value})


def test_a_bundle_trains_so_many_steps(tmp_path, tiny_dataset):
    """An epoch of the tiny data is one batch; here one has two steps, and the second ends early and is validated."""
    made = create_workflow(
        config_file=config(BUNDLES[1], "train"),
        workflow_type="train",
        **{"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "max_steps": 3, "val_interval": 1},
        **{"steps_per_epoch": 2, "bundle_root": str(tmp_path), "dataset_dir": str(tiny_dataset)},
    )
    made.run()
    trainer, evaluator = (made.parser.get_parsed_content(name) for name in ("train#trainer", "validate#evaluator"))
    assert (trainer.state.iteration, trainer.state.epoch, evaluator.state.epoch) == (3, 2, 2)
    assert made.parser.get_parsed_content("lr_scheduler").t_total == 3
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0)
    record = json.loads((tmp_path / "models" / "training.json").read_text())
    assert (record["steps"], record["epochs"]) == (3, 2)
    assert record["settings"] == record["settings"] | {"max_steps": 3, "steps_per_epoch": 2}


@pytest.mark.parametrize("value", ["0", "-1", "abc", "2.5", "nan"])
def test_a_wrong_number_of_steps_is_refused_before_any_data_are_read(value, tmp_path):
    """There are no data at all: the sentence is about the number."""
    places = {"bundle_root": str(tmp_path), "dataset_dir": str(tmp_path / "nothing")}
    with pytest.raises(RuntimeError) as caught:
        create_workflow(
            config_file=config("setr_kv_segmentation", "train"),
            workflow_type="train",
            **places,
            max_steps=DefaultParseValue(value),
        )
    sentence = str(find_input_error(caught.value))
    assert sentence.startswith("--max_steps is ")
    assert value in sentence


@pytest.mark.parametrize(("name", "value"), [("max_steps", "nan"), ("steps_per_epoch", "0")])
def test_monais_command_line_ends_with_the_sentence(name, value, tmp_path):
    result = run("setr_kv_segmentation", "train", tmp_path, tmp_path / "nothing", f"--{name}", value)
    assert result.returncode == 2
    assert re.search(rf"^error: --{name} is '?{value}'?; it must be a whole number from 1 on$", result.stderr, re.M)
    assert "Traceback" not in result.stderr
