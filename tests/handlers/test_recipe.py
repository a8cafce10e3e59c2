"""Parts of the training recipe: clipped gradients, the schedule of the rate, the average of the weights."""

import copy
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from support import BUNDLES, config, succeed
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.handlers import AverageWeights, Checkpoints, ClipGradients, WarmupSchedule


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trainer(net: nn.Module, optimizer: torch.optim.Optimizer, *, scale: float = 1.0) -> Engine:
    """An engine of real steps on batches that depend on the step alone."""

    def step(engine: Engine, _: object) -> dict:
        generator = torch.Generator().manual_seed(engine.state.iteration)
        optimizer.zero_grad()
        loss = (scale * net.train()(torch.randn(8, 3, generator=generator))).square().mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return Engine(step)


def rates(made: WarmupSchedule, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(made.get_last_lr()[0])
        made.optimizer.step()
        made.step()
    return found


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1)


@pytest.mark.parametrize("max_norm", [0.01, 1, "2"])
def test_gradients_are_clipped_before_the_step(max_norm):
    net = network()
    before = copy.deepcopy(net)
    optimizer = sgd(net)
    engine = trainer(net, optimizer, scale=1e4)
    ClipGradients(optimizer, float(max_norm)).attach(engine)
    engine.run([0], 1)
    moved = [new.detach() - old for new, old in zip(net.parameters(), before.parameters(), strict=True)]
    assert nn.utils.get_total_norm(moved) == pytest.approx(0.1 * float(max_norm), rel=1e-4)


def test_without_a_norm_nothing_is_clipped():
    plain, same = network(), network()
    for net, handler in ((plain, False), (same, True)):
        optimizer = sgd(net)
        engine = trainer(net, optimizer, scale=10)
        if handler:
            ClipGradients(optimizer, None).attach(engine)
        engine.run([0, 0], 2)
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("max_norm", [0, -1, float("nan")])
def test_a_norm_that_is_none(max_norm):
    with pytest.raises(InputError, match=r"--gradient_clip is .*; it must be a norm above 0"):
        ClipGradients(sgd(network()), max_norm)


def test_the_cosine_is_monais():
    net = network()
    ours = WarmupSchedule(sgd(net), 40, warmup=0.2)
    monais = WarmupCosineSchedule(sgd(net), warmup_steps=8, t_total=40, warmup_multiplier=0.01)
    assert rates(ours, 40) == rates(monais, 40)


def test_the_rate_rises_for_half_of_the_steps_at_most():
    found = [rates(WarmupSchedule(sgd(network()), steps), steps) for steps in (1, 2, 50, 150, 200, 400)]
    assert [made.index(max(made)) for made in found] == [0, 1, 25, 75, 100, 100]


def test_the_polynomial_ends_at_nothing():
    found = rates(WarmupSchedule(sgd(network()), 100, warmup_steps=20, schedule="poly"), 101)
    assert found[20] == pytest.approx(0.1)
    assert found[10] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5))
    assert found[60] == pytest.approx(0.1 * 0.5**0.9)
    assert found[100] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"schedule": "linear"}, "--schedule is 'linear'; it must be one of cosine, poly"),
        ({"warmup": 1.5}, "--warmup is 1.5; it must be a share"),
        ({"warmup_steps": 0}, "warmup_steps"),
    ],
)
def test_a_schedule_that_is_none(options, sentence):
    with pytest.raises(InputError, match=sentence):
        WarmupSchedule(sgd(network()), 100, **options)


def averaged(net: nn.Module, **options: object) -> tuple[Engine, AverageWeights, list[dict]]:
    """A trainer with an average, and what the network held at the end of each epoch, where it is validated."""
    engine, average = trainer(net, sgd(net)), AverageWeights(net, 0.9)
    average.attach(engine)
    seen: list[dict] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(copy.deepcopy(net.state_dict())))
    return engine, average, seen


def test_what_is_validated_is_the_average_and_the_training_goes_on_from_its_own():
    plain, net = network(), network()
    own: list[dict] = []
    bare = trainer(plain, sgd(plain))
    bare.add_event_handler(Events.ITERATION_COMPLETED, lambda: own.append(copy.deepcopy(plain.state_dict())))
    bare.run([0] * 4, 3)
    engine, average, seen = averaged(net)
    engine.run([0] * 4, 3)
    expected = own[0]
    for number, weights in enumerate(own, start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = {
            name: weights[name] if name.endswith("tracked") else decay * old + (1 - decay) * weights[name]
            for name, old in expected.items()
        }
    for name, tensor in seen[-1].items():
        torch.testing.assert_close(tensor, expected[name])
    average.give_own()
    assert all(torch.equal(tensor, own[-1][name]) for name, tensor in net.state_dict().items())


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path):
    whole = network()
    averaged(whole)[0].run([0] * 4, 4)
    first = network()
    for epochs in (2, 4):
        net = first if epochs == 2 else network()
        optimizer = sgd(net)
        engine, average = trainer(net, optimizer), AverageWeights(net, 0.9)
        average.attach(engine)
        parts = {"optimizer": optimizer, "average": average}
        Checkpoints(str(tmp_path), net, parts=parts, resume=epochs == 4).attach(engine)
        engine.run([0] * 4, epochs)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in net.state_dict().items())
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in net.state_dict().items())


def test_a_checkpoint_of_an_earlier_version_has_no_average(tmp_path):
    net = network()
    optimizer = sgd(net)
    engine = trainer(net, optimizer)
    Checkpoints(str(tmp_path), net, parts={"optimizer": optimizer}).attach(engine)
    engine.run([0], 1)
    again = network()
    optimizer = sgd(again)
    engine, average = trainer(again, optimizer), AverageWeights(again, None)
    average.attach(engine)
    Checkpoints(str(tmp_path), again, parts={"optimizer": optimizer, "average": average}, resume=True).attach(engine)
    engine.run([0], 2)
    assert engine.state.epoch == 2


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1])
def test_a_decay_that_is_none(decay):
    with pytest.raises(InputError, match=r"--ema is .*; it must be a decay between 0 and 1"):
        AverageWeights(network(), decay)


RECIPE = ("--ema", "0.9", "--gradient_clip", "1", "--schedule", "poly", "--warmup_steps", "2", "--flip", "[0]")


@pytest.mark.parametrize("normalization", ["zscore", "zscore_slice"])
def test_a_bundle_with_all_options_resumes_and_is_scored_with_its_normalization(tmp_path, tiny_dataset, normalization):
    """The average that was validated is what is saved, also where the training was interrupted."""
    same = ("--normalization", normalization)
    options = (*RECIPE, *same, "--steps_per_epoch", "2", "--max_epochs", "2")
    bundle, whole, parts = BUNDLES[1], tmp_path / "whole", tmp_path / "parts"
    succeed(bundle, "train", whole, tiny_dataset, *options)
    for changes in (("--max_epochs", "1"), ("--resume", "true")):
        succeed(bundle, "train", parts, tiny_dataset, *options, *changes)
    saved = [torch.load(folder / "models" / "last.ckpt", weights_only=True) for folder in (whole, parts)]
    assert [checkpoint["iteration"] for checkpoint in saved] == [4, 4]
    for checkpoint in saved:
        assert checkpoint["average"]["steps"] == 4
        assert any(
            not torch.equal(checkpoint["average"]["own"][name], tensor)
            for name, tensor in checkpoint["network"].items()
        )
    record = json.loads((whole / "models" / "training.json").read_text())
    assert record["settings"]["normalization"] == normalization
    succeed(bundle, "evaluate", whole, tiny_dataset, *same)
    assert json.loads((whole / "eval" / "metrics.json").read_text())["mean"]


def test_the_average_comes_before_the_validation_wherever_handlers_are_put_in_front():
    trained = json.loads(Path(config(BUNDLES[1], "train")).read_text())["train"]["handlers"]
    names = [each["_target_"] for each in trained]
    assert trained[names.index("kvseg_monai.handlers.attached")]["handler"] == "@average"
    assert names.index("kvseg_monai.handlers.attached") < names.index("kvseg_monai.handlers.ValidateEpochs")
    checkpoints = trained[names.index("kvseg_monai.handlers.Checkpoints")]
    assert not [part for part in checkpoints["parts"].values() if "handlers#" in part]
