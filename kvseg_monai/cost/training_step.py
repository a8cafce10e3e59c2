"""Time a bundle's training step against a bare PyTorch loop: ``python -m kvseg_monai.benchmark --dataset_dir DIR``.

Both train the same network on the same slices, in turn within one run: an epoch of the bundle, whose batches are kept,
then the same batches through forward, loss, backward and optimizer step alone. What the bundle takes longer is its
sampling, augmentation, engine and handlers. Printed are medians over all steps and their ratio.
"""

import argparse
import copy
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import create_workflow

from kvseg_monai.bundle.find import find_bundle
from kvseg_monai.cost.timing import wait_for_device
from kvseg_monai.utils.program import program
from kvseg_monai.utils.provenance import machine


class StepClock:
    """Handler that times the bundle's steps and, after each epoch, the bare loop on that epoch's batches.

    Args:
        network: trained by the bundle; the bare loop trains a copy with its own AdamW.
        loss: called as ``loss(logits, label)``.
    """

    def __init__(self, network: torch.nn.Module, loss: torch.nn.Module) -> None:
        self.network, self.loss = copy.deepcopy(network), loss
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.bundle_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.batches: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._restart)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_done)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._run_bare)

    def _restart(self, engine: Engine) -> None:
        self.batches = []
        self.started = time.perf_counter()

    def _step_done(self, engine: Engine) -> None:
        wait_for_device()
        now = time.perf_counter()
        self.bundle_seconds.append(now - self.started)
        self.batches.append({key: engine.state.output[key] for key in ("image", "label")})
        self.started = time.perf_counter()

    def _run_bare(self, engine: Engine) -> None:
        device = next(self.network.parameters()).device
        self.network.train()
        for batch in self.batches:
            start = time.perf_counter()
            image, label = (batch[key].to(device) for key in ("image", "label"))
            self.optimizer.zero_grad()
            self.loss(self.network(image), label).backward()
            self.optimizer.step()
            wait_for_device()
            self.bare_seconds.append(time.perf_counter() - start)


def time_training_step(bundle: Path, dataset_dir: Path, *, epochs: int, **overrides: Any) -> StepClock:
    """Train ``epochs`` epochs and return the clock; nothing is validated or saved.

    Args:
        bundle: the bundle's folder.
        dataset_dir: folder with a ``datalist.json``.
        epochs: rounds of bundle and bare loop; the first is a warm-up and is not counted.
        overrides: of the bundle's ``train.json``.
    """
    config = bundle / "configs" / "train.json"
    options = {"bundle_root": str(bundle), "dataset_dir": str(dataset_dir), "max_epochs": epochs + 1, **overrides}
    parser = create_workflow(config_file=str(config), workflow_type="train", **options).parser
    clock = StepClock(parser.get_parsed_content("network"), parser.get_parsed_content("loss"))
    # The learning rate alone: validation and checkpoints do not come with every step.
    schedule = [handler for handler in parser["train"]["handlers"] if handler["_target_"] == "LrScheduleHandler"]
    parser["train"]["handlers"] = schedule
    parser.parse(reset=True)
    trainer = parser.get_parsed_content("train#trainer")
    clock.network.load_state_dict(parser.get_parsed_content("network").state_dict())
    clock.attach(trainer)
    trainer.run()
    warm = len(clock.batches)
    clock.bundle_seconds, clock.bare_seconds = clock.bundle_seconds[warm:], clock.bare_seconds[warm:]
    return clock


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog=program("kvseg_monai.benchmark"), description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="setr_kv", help="a bundle's folder, or its name (default: %(default)s)")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder with a datalist.json")
    parser.add_argument("--epochs", type=int, default=3, help="measured rounds (default: %(default)s)")
    parser.add_argument("--size", default="tiny", help="network size (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=256, help="side of the canvas (default: %(default)s)")
    options = parser.parse_args(arguments)
    overrides = {"network_def#size": options.size, "image_size": [options.image_size] * 2}
    clock = time_training_step(find_bundle(options.bundle), options.dataset_dir, epochs=options.epochs, **overrides)
    bundle, bare = median(clock.bundle_seconds), median(clock.bare_seconds)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # as the bundle chooses
    print(f"{machine(device)}, torch {torch.__version__}")
    print(f"bundle {bundle:.3f} s per step, bare loop {bare:.3f} s, ratio {bundle / bare:.3f}")
    print(f"medians of {len(clock.bundle_seconds)} steps each, {clock.batches[0]['image'].shape[0]} slices per step")
    return 0
