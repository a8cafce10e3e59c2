"""A training whose loss or weights become NaN stops, says where, and keeps what was saved before."""

import re
import socket
import time

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import create_workflow
from support import BUNDLES, config
from torch import nn

from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers.training import StopOnNan

NAN, INF = float("nan"), float("inf")


def train(
    losses: list[float], weights: list[float], interval: int = 1, steps: int = 2, made: list | None = None
) -> Engine:
    """A step per loss, two an epoch, whose step sets the one weight as given; the case is named by the step.

    ``made`` gets the steps, and "saved" after each epoch that could have been saved.
    """
    made = [] if made is None else made
    network = nn.Linear(1, 1, bias=False)

    def step(engine: Engine, batch: dict) -> dict:
        number = engine.state.iteration - 1
        made.append(number + 1)
        engine.state.batch = {"case": [f"{number + 1}.nii.gz"] * 4}
        nn.init.constant_(network.weight, weights[number])
        return {"loss": torch.tensor(losses[number])}

    trainer = Engine(step)
    StopOnNan(network, interval=interval).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: made.append("saved"))
    trainer.run(range(steps), max_epochs=len(losses) // steps)
    return trainer


@pytest.mark.parametrize("interval", [1, 32])
@pytest.mark.parametrize(
    ("losses", "weights", "sentence"),
    [
        ([1, 1, NAN, 1], [1, 1, 1, 1], "the loss became NaN in epoch 2, step 1 of 2, on 3.nii.gz; the training stops"),
        ([1, INF, 1, 1], [1, 1, 1, 1], "the loss became infinite in epoch 1, step 2 of 2, on 2.nii.gz; "),
        ([1, 1, 1, NAN], [1, 1, 1, NAN], "the loss became NaN in epoch 2, step 2 of 2, on 4.nii.gz; "),
        ([1, 1, NAN, 1], [1, NAN, 1, 1], "the norm of the weights became NaN in epoch 1, step 2 of 2, on 2.nii.gz; "),
        ([1, 1, 1, 1], [INF, 1, 1, 1], "the norm of the weights became infinite in epoch 1, step 1 of 2, on 1.nii.gz;"),
    ],
)
def test_step_and_case_are_reported(losses, weights, sentence, interval):
    """Also where the numbers are looked at together; nothing that comes after the bad step is saved."""
    made: list = []
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        train(losses, weights, interval, made=made)
    assert made.count("saved") == int(sentence.split("epoch ")[1][0]) - 1


@pytest.mark.parametrize(("interval", "last"), [(1, 13), (4, 14), (5, 15), (32, 20)])
def test_a_training_ends_when_its_numbers_are_looked_at(interval, last):
    """Which step it was counts within its epoch, and so do the steps that are looked at together."""
    losses, made = [1.0] * 12 + [NAN] * 8, []
    with pytest.raises(InputError, match=r"^the loss became NaN in epoch 2, step 3 of 10, on 13.nii.gz; "):
        train(losses, [1] * 20, interval, steps=10, made=made)
    assert made == [*range(1, 11), "saved", *range(11, last + 1)]


def test_a_training_without_nan_goes_on():
    assert train([1e30, -5, 0, 1], [1e15, 0, -1, 1]).state.iteration == 4


@pytest.mark.parametrize("interval", [1, 32])
@pytest.mark.parametrize("poison", ["weights", "loss"])
def test_what_was_saved_before_stays(poison, interval, tmp_path, tiny_dataset):
    """Through ``create_workflow``, with the bundle's own network, data and handlers."""
    small = {
        "network_def#size": "tiny",
        "image_size": [64, 64],
        "volumes_per_batch": 2,
        "max_epochs": 3,
        "val_interval": 1,
    }
    small["train#handlers#1#interval"] = interval
    places = {"bundle_root": str(tmp_path), "dataset_dir": str(tiny_dataset)}
    made = create_workflow(config_file=config(BUNDLES[1], "train"), workflow_type="train", **places, **small)
    trainer = made.parser.get_parsed_content("train#trainer")
    kept = {}

    @trainer.on(Events.ITERATION_STARTED(once=4))  # the second step of the second epoch
    def spoil(engine: Engine) -> None:
        kept.update({path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()})
        with torch.no_grad():
            if poison == "weights":
                next(engine.network.parameters()).fill_(NAN)
            else:
                engine.state.batch["image"][1] = INF

    with pytest.raises(RuntimeError, match="Failed to evaluate") as reported:
        made.run()
    sentence = str(find_input_error(reported.value))
    cases = rf"{tiny_dataset}/images/case\d.nii.gz"
    assert re.match(rf"the loss became NaN in epoch 2, step 2 of 2, on {cases}, {cases}; ", sentence)
    assert torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()} == kept
    assert "model.pt" in kept


def one_process(rank: int, port: int, folder: str, interval: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    network = nn.Linear(1, 1)

    def step(engine: Engine, batch: int) -> dict:
        engine.state.batch = {"case": [f"{rank}.nii.gz"]}
        return {"loss": torch.tensor(NAN if (rank, batch) == (1, 2) else 1.0)}

    trainer = Engine(step)
    StopOnNan(network, interval=interval).attach(trainer)
    try:
        trainer.run([0, 1, 2, 3])
    except InputError as error:
        with open(f"{folder}/{rank}.txt", "w", encoding="utf-8") as file:
            file.write(f"{trainer.state.iteration} {error}")


@pytest.mark.parametrize(("interval", "made"), [(1, 3), (2, 4), (32, 4)])
def test_all_processes_stop_in_the_same_step(interval, made, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, for a process that starts anew imports all of this again; what they compute is too small for threads.
    processes = torch.multiprocessing.start_processes(
        one_process, (port, str(tmp_path), interval), nprocs=2, join=False, daemon=True, start_method="fork"
    )
    deadline = time.monotonic() + 60
    while not processes.join(timeout=1):
        assert time.monotonic() < deadline
    reported = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert reported[0] == reported[1]
    assert reported[0].startswith(f"{made} the loss became NaN in epoch 1, step 3 of 4, on 1.nii.gz; ")
