"""Training by the clock: it ends in time and the rate ends at 0, whatever the steps last, also when interrupted."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanSquaredError, from_engine
from support import BUNDLES, ROOT, TINY, config, run
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.handlers import (
    AverageWeights,
    Checkpoints,
    SeedEpochs,
    StopAfterMinutes,
    TrainingClock,
    ValidateEpochs,
    WarmupSchedule,
    check_steps,
)
from kvseg_monai.handlers.clock import steps_left

PEAK, LENGTH, VOLUMES = 0.01, 50, 20


class Time:
    """Seconds that pass when a test lets them."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def passes(self, seconds: float) -> None:
        self.seconds += seconds


class Training:
    """A real training of one weight, in which loading, steps, validations and saving take so many made-up seconds."""

    def __init__(
        self,
        folder: Path,
        minutes: float | None,
        *,
        step,
        loading=30.0,
        preparing=20.0,
        validating=8.0,
        saving=2.0,
        **more,
    ):
        torch.manual_seed(0)
        self.time, self.rates, self.validated, self.step = Time(), [], [], step
        interval = more.pop("val_interval", 1)
        clock = self.clock = TrainingClock(minutes, val_interval=interval, now=self.time)
        self.time.passes(loading)
        network = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=PEAK)
        average = AverageWeights(network, more.pop("ema", None))
        resume, self.breaks = more.pop("resume", False), more.pop("breaks", 0)
        schedule = WarmupSchedule(optimizer, 7 * LENGTH, clock=clock, **more)
        cases = [{"image": torch.tensor([case / LENGTH]), "label": torch.ones(1)} for case in range(2 * LENGTH)]
        prepared: set[float] = set()

        def prepare(case: dict) -> dict:
            if case["image"].item() not in prepared:
                self.time.passes(preparing / VOLUMES)
                prepared.add(case["image"].item())
            return case

        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(cases[:VOLUMES], transform=prepare), batch_size=1),
            network=network,
            key_val_metric={"score": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        )
        self.evaluator.add_event_handler(Events.ITERATION_STARTED, lambda: self.time.passes(validating / VOLUMES))
        dataset = Dataset(cases)
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=7,
            train_data_loader=DataLoader(dataset, batch_size=2, shuffle=True),
            network=network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            decollate=False,
            train_handlers=[
                SeedEpochs(dataset, seed=0),
                LrScheduleHandler(schedule, epoch_level=False, print_lr=False),
                average,
                ValidateEpochs(self.evaluator, interval, clock=clock),
                Checkpoints(
                    str(folder),
                    network,
                    parts={"optimizer": optimizer, "lr_scheduler": schedule, "average": average, "clock": clock},
                    evaluator=self.evaluator,
                    resume=resume,
                ),
            ],
        )
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.save, saving)
        StopAfterMinutes(clock, self.evaluator).attach(self.trainer)
        self.trainer.add_event_handler(Events.ITERATION_STARTED, self.take)
        self.optimizer = optimizer

    def save(self, engine, saving: float) -> None:
        if self.evaluator.state.epoch == engine.state.epoch:
            self.validated.append(engine.state.iteration)
            self.time.passes(saving)

    def take(self, engine) -> None:
        if engine.state.iteration == self.breaks:
            raise RuntimeError("out of memory")
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.time.passes(self.step(engine.state.iteration))

    def run(self) -> "Training":
        self.trainer.run()
        return self

    @property
    def used(self) -> float:
        return self.time.seconds - 1000


NOISE = np.random.default_rng(0).lognormal(0, 0.8, 5000)
STEPS = {
    "alike": lambda step: 1.0,
    "slower": lambda step: 1.0 if step < 150 else 2.5,
    "faster": lambda step: 2.0 if step < 100 else 0.7,
    "noisy": lambda step: float(NOISE[step]),
    "slow first": lambda step: 30.0 if step == 1 else 0.8,
    "waves": lambda step: 1.0 + 0.9 * np.sin(step / 12),
}


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
@pytest.mark.parametrize("steps", STEPS)
def test_a_training_ends_in_time_with_a_rate_near_0(tmp_path, steps, schedule):
    made = Training(tmp_path, 10, step=STEPS[steps], schedule=schedule).run()
    assert made.used == pytest.approx(600, rel=0.01)
    assert made.validated[-1] == len(made.rates)  # the last weights are scored and saved
    rates = np.array(made.rates) / PEAK
    assert rates[0] == pytest.approx(0.01)
    assert rates.max() > 0.97
    assert rates[-1] < (0.005 if schedule == "cosine" else 0.03)
    falls = rates[rates.argmax() :]
    assert np.diff(falls).max() < 0.03  # but for what the mean of the last steps changes
    assert np.diff(falls).min() > -0.1
    assert rates.argmax() == 100  # the warm-up, in steps


def test_the_rate_is_that_of_as_many_planned_steps_where_all_take_as_long(tmp_path):
    made = Training(tmp_path, 10, step=STEPS["alike"]).run()
    network = nn.Linear(1, 1)
    planned = WarmupSchedule(torch.optim.SGD(network.parameters(), lr=PEAK), len(made.rates))
    expected = [PEAK * planned.lr_lambda(step) for step in range(len(made.rates))]
    off = np.abs(np.array(made.rates) - expected) / PEAK
    assert off.max() < 0.1  # at first, when it is not known yet what is saved, nor what is left to prepare
    assert off[len(off) // 2 :].max() < 0.03


@pytest.mark.parametrize("interval", [1, 2, 4])
@pytest.mark.parametrize("validating", [0.1, 40.0])
def test_validations_have_their_time(tmp_path, interval, validating):
    """The last epoch is validated whether its turn is or not, and none just before it."""
    made = Training(tmp_path, 10, step=STEPS["alike"], validating=validating, val_interval=interval).run()
    assert made.used == pytest.approx(600, rel=0.01)
    *earlier, last = made.validated
    assert last == len(made.rates)
    assert all(step % (interval * LENGTH) == 0 for step in earlier)
    assert not earlier or (last - earlier[-1]) >= 2
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["steps"] == len(made.rates)
    assert facts["max_minutes"] == 10


def test_warm_up_in_steps_stays_in_steps(tmp_path):
    rates = np.array(Training(tmp_path, 10, step=STEPS["noisy"], warmup_steps=80).run().rates) / PEAK
    assert rates[:81] == pytest.approx(0.01 + 0.99 * np.arange(81) / 80)
    assert np.diff(rates[80:]).max() < 0.02


def test_warm_up_that_does_not_fit_ends_halfway(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made = Training(tmp_path, 10, step=STEPS["alike"], warmup_steps=5000).run()
    assert "half of --max_minutes is up after" in caplog.text
    rates = np.array(made.rates)
    assert 0.4 < rates.argmax() / len(rates) < 0.6
    assert rates[-1] < 0.001 * PEAK
    assert made.used == pytest.approx(600, rel=0.01)


def test_without_time_one_step_is_made_validated_and_saved(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        made = Training(tmp_path, 0.1, step=STEPS["alike"]).run()
    assert len(made.rates) == 1
    assert made.validated == [1]
    assert {"model.pt", "last.ckpt", "training.json"} <= {path.name for path in tmp_path.iterdir()}
    assert "are used before the first step" in caplog.text
    assert "the training took 1.1 minutes, not --max_minutes 0.1" in caplog.text


def test_an_interrupted_training_goes_on_with_the_time_that_is_left(tmp_path):
    broken = Training(tmp_path, 10, step=STEPS["alike"], breaks=230, ema=0.9)
    with pytest.raises(RuntimeError, match="out of memory"):
        broken.run()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["iteration"] == 200
    resumed = Training(tmp_path, 10, step=STEPS["alike"], resume=True, ema=0.9).run()
    assert saved["clock"]["used"] + resumed.used == pytest.approx(600, rel=0.01)
    assert resumed.rates[0] == pytest.approx(broken.rates[200], rel=0.02)
    assert resumed.rates[-1] < 0.001 * PEAK
    with pytest.raises(InputError, match=r"minutes are used already and --max_minutes is 10; raise --max_minutes"):
        Training(tmp_path, 10, step=STEPS["alike"], resume=True).run()
    longer = Training(tmp_path, 15, step=STEPS["alike"], resume=True).run()
    assert longer.used == pytest.approx(300, rel=0.02)


def test_without_minutes_all_is_as_before(tmp_path):
    made = Training(tmp_path, None, step=STEPS["slower"]).run()
    assert made.validated == [LENGTH * (epoch + 1) for epoch in range(7)]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["clock"] == {}
    assert "max_minutes" not in json.loads((tmp_path / "training.json").read_text())


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), "ten", True])
def test_minutes_that_are_none(minutes):
    with pytest.raises(InputError, match=r"--max_minutes is .*; it must be a number of minutes above 0, or null"):
        TrainingClock(minutes)


def test_two_lengths_at_once():
    with pytest.raises(InputError, match="--max_minutes is 5 and --max_steps is 10; one of them alone"):
        check_steps(max_minutes=5, max_steps=10)
    with pytest.raises(InputError, match="--max_minutes is 5 and --rounds is 3; the rounds"):
        check_steps(max_minutes=5, rounds=3)


@pytest.mark.parametrize("seed", range(200))
def test_the_steps_that_are_left_are_those_that_are_made(seed):
    """Counted one by one, validations included."""
    rng = np.random.default_rng(seed)
    free, step, ending = rng.uniform(0, 200), rng.uniform(0.1, 3), rng.choice([0.0, rng.uniform(0, 30)])
    every = int(rng.integers(1, 30))
    due = int(rng.integers(0, every + 1))
    found = steps_left(free, step=step, ending=ending, due=due, every=every)
    made = 0
    while True:
        if due == 0:
            free -= ending if free > 2 * ending + 2 * step else 0
            due = every
        if free < step:
            break
        free, made, due = free - step, made + 1, due - 1
    assert found == pytest.approx(made + max(free, 0) / step, abs=1e-6)


def test_a_bundle_trains_for_so_long(tmp_path, tiny_dataset):
    begun = time.monotonic()
    made = create_workflow(
        config_file=config(BUNDLES[1], "train"),
        workflow_type="train",
        **{"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "max_minutes": 0.25, "ema": 0.9},
        **{"steps_per_epoch": 3, "val_interval": 2, "bundle_root": str(tmp_path), "dataset_dir": str(tiny_dataset)},
    )
    made.run()
    assert time.monotonic() - begun > 11
    trainer, evaluator = (made.parser.get_parsed_content(name) for name in ("train#trainer", "validate#evaluator"))
    assert trainer.state.iteration > 3
    assert evaluator.state.epoch == trainer.state.epoch
    assert trainer.optimizer.param_groups[0]["lr"] < 0.0005
    record = json.loads((tmp_path / "models" / "training.json").read_text())
    assert record["steps"] == trainer.state.iteration
    assert record["max_minutes"] == record["settings"]["max_minutes"] == 0.25


def test_two_processes_stop_in_the_same_step(tmp_path, tiny_dataset):
    """Else one would wait for the other for ever."""
    configs = f"['{config(BUNDLES[1], 'train')}','{config(BUNDLES[1], 'multi_gpu_train')}']"
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    line += ["run", "--config_file", configs, "--bundle_root", str(tmp_path), "--dataset_dir", str(tiny_dataset), *TINY]
    result = subprocess.run(
        [*line, "--max_minutes", "0.8", "--steps_per_epoch", "2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "models" / "training.json").read_text())["steps"] >= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--max_minutes", "0"), "--max_minutes is 0; it must be a number of minutes above 0"),
        (("--max_minutes", "5", "--max_steps", "10"), "--max_minutes is 5 and --max_steps is 10; one of them alone"),
    ],
)
def test_a_wrong_time_is_refused_before_any_data_are_read(options, sentence, tmp_path):
    result = run("setr_kv_segmentation", "train", tmp_path, tmp_path / "nothing", *options)
    assert result.returncode == 2
    assert f"error: {sentence}" in result.stderr
    assert "Traceback" not in result.stderr
