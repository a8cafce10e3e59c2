"""One arm in a process of its own: ``python -m kvseg_monai.study.arm``, started by ``kvseg_monai.study run``.

It trains and scores through the bundle's ``train.json`` and ``evaluate.json``, goes on where it was interrupted, and
leaves in its folder: ``models/``, ``training/`` (TensorBoard), ``evaluation/`` (scores per case, label maps),
``curve.csv``, ``results.csv`` (scores per patient), and last of all ``arm.json``, which says that it is finished.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow, create_workflow
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from kvseg_monai.data.datalist import SECTIONS
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.handlers.checkpoints import LAST
from kvseg_monai.metrics.summary import FILES
from kvseg_monai.report import read_metrics, read_scalars
from kvseg_monai.study import results
from kvseg_monai.study.plan import known_overrides
from kvseg_monai.study.state import begun
from kvseg_monai.utils import provenance
from kvseg_monai.utils.files import refuse_foreign, write_text
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.weights_file import read_weights

BUSY = 75  # exit code: another process has the arm in work
EPOCH = "epoch "  # begins a line on stdout that says how far the training is
EPOCH_SECONDS = "epoch_seconds"
GPU_SHARE = "gpu_share"  # option of a bundle: what the volumes may take of a GPU's free memory


@dataclass(frozen=True)
class Job:
    """Task of one arm: its folder, from which bundle and data, on which device; ``configuration`` says what it is.

    ``dataset_dir`` holds the study's datalist, whose paths are relative to ``base_dir``. Of ``jobs`` at once it is one.
    """

    folder: Path
    bundle: Path
    dataset_dir: Path
    base_dir: Path
    device: str
    configuration: Mapping[str, Any]
    jobs: int = 1


def open_workflow(job: Job, name: str, **extra: Any) -> ConfigWorkflow:
    """Return the bundle's ``train`` or ``evaluate`` workflow with the arm's overrides; nothing is built yet."""
    file = job.bundle / "configs" / f"{name}.json"
    configuration = json.loads(file.read_text(encoding="utf-8"))
    overrides = known_overrides(configuration, job.configuration["overrides"])
    if job.jobs > 1 and GPU_SHARE in configuration:
        overrides[GPU_SHARE] = float(overrides.get(GPU_SHARE, configuration[GPU_SHARE])) / job.jobs
    return create_workflow(
        config_file=str(file),
        workflow_type="train" if name == "train" else "inference",
        bundle_root=str(job.bundle),
        dataset_dir=str(job.dataset_dir),
        base_dir=str(job.base_dir),
        ckpt_dir=str(job.folder / "models"),
        output_dir=str(job.folder / ("training" if name == "train" else "evaluation")),
        seed=job.configuration["seed"],
        device=f"$torch.device('{job.device}')",
        **{**overrides, **extra},
    )


@torch.no_grad()
def start_alike(job: Job, network: nn.Module) -> None:
    """Give each weight that the reference has too, by name and shape, the start that it has there.

    Both draw from the same seed, but a network without a query draws fewer numbers, so all that follow would differ.
    """
    kind = {"network_def#attention": job.configuration["reference"]}
    ours = "network_def#attention" in job.configuration["overrides"]
    reference = open_workflow(job, "train", **(kind if ours else {})).parser.get_parsed_content("network_def")
    own = network.state_dict()
    for name, weight in reference.state_dict().items():
        if name in own and own[name].shape == weight.shape:
            own[name].copy_(weight)


def open_training(job: Job) -> tuple[ConfigWorkflow, Engine]:
    """Return the training workflow and its trainer, ready to run or to go on."""
    workflow = open_workflow(job, "train", resume=True)
    start_alike(job, workflow.parser.get_parsed_content("network"))
    return workflow, workflow.parser.get_parsed_content("train#trainer")


def train(job: Job) -> None:
    """Train up to ``max_epochs``; each epoch is reported on stdout and timed in TensorBoard, validation included."""
    last = job.folder / "models" / LAST
    done = read_weights(last)["epoch"] if last.is_file() else 0
    if done >= job.configuration["max_epochs"]:
        return
    workflow, trainer = open_training(job)
    writer = SummaryWriter(str(job.folder / "training"))
    clock = {"start": time.monotonic()}

    def report_epoch(engine: Engine) -> None:
        now = time.monotonic()
        writer.add_scalar(EPOCH_SECONDS, now - clock["start"], engine.state.epoch)
        writer.flush()
        clock["start"] = now
        print(f"{EPOCH}{engine.state.epoch}", flush=True)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, report_epoch)
    workflow.run()
    writer.close()


def evaluate(job: Job) -> float:
    """Score the best weights on the test patients; return the seconds."""
    workflow = open_workflow(job, "evaluate", section="test")
    start = time.monotonic()
    workflow.run()
    return time.monotonic() - start


def write_curve(folder: Path) -> dict[str, Any]:
    """Write ``curve.csv`` from the TensorBoard events; return epochs, seconds and the best epoch."""
    scalars = read_scalars(folder / "training")
    seconds, dice = dict(scalars[EPOCH_SECONDS]), dict(scalars["val_mean_dice"])
    lines = ["epoch,val_mean_dice,seconds", *(f"{e},{dice.get(e, '')},{s:.3f}" for e, s in seconds.items())]
    write_text(folder / results.CURVE, "\n".join(lines) + "\n")
    best = max(dice, key=dice.__getitem__)
    return {
        "epochs": max(seconds),
        "training_seconds": round(sum(seconds.values()), 3),
        "best_epoch": best,
        "best_val_dice": dice[best],
    }


def count_parameters(job: Job) -> int:
    """Return the number of trainable weights of the arm's network."""
    network = open_workflow(job, "evaluate").parser.get_parsed_content("network_def")
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def machine(device: str) -> dict[str, Any]:
    """Say on what an arm was computed."""
    return {"device": provenance.machine(device), "versions": provenance.versions()}


def make(job: Job) -> None:
    """Train, score, and write the arm's records, ``arm.json`` last.

    Raises:
        InputError: before the training, where what is not ours is in the place of a file to write.
    """
    written = [results.CURVE, results.FILE, results.RECORD, *(f"evaluation/{name}" for name in FILES)]
    refuse_foreign(job.folder / name for name in written)
    train(job)
    seconds = evaluate(job)
    metrics = read_metrics(job.folder / "evaluation" / "metrics.json")
    identity = {key: job.configuration[key] for key in ("net", "attention", "seed")}
    record = {
        **identity,
        "configuration_hash": results.digest(job.configuration),
        "parameters": count_parameters(job),
        **write_curve(job.folder),
        "evaluation_seconds": round(seconds, 3),
        **machine(job.device),
        "patients": {section: len(job.configuration["split"][section]) for section in SECTIONS},
        "test": metrics["mean"],
    }
    results.write_rows(job.folder / results.FILE, results.rows_of(metrics, record))
    write_text(job.folder / results.RECORD, json.dumps(record, indent=1) + "\n")


def main() -> int:
    """Parse the command line and make the arm."""
    parser = argparse.ArgumentParser(prog="python -m kvseg_monai.study.arm", description=__doc__.splitlines()[0])
    for name in ("folder", "bundle", "dataset_dir", "base_dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="arms that are made at once, this one included")
    options = parser.parse_args()
    sources = {name: getattr(options, name) for name in ("dataset_dir", "base_dir")}
    refuse_overlap(sources=sources, targets={"folder": options.folder})
    configuration = begun(options.folder)
    if configuration is None:
        raise InputError(
            f"{options.folder / results.CONFIGURATION} is missing; an arm is made by python -m kvseg_monai.study run"
        )
    try:
        with FileLock(options.folder / results.LOCK, timeout=0):
            make(Job(**vars(options), configuration=configuration))
    except Timeout:
        return BUSY
    return 0


if __name__ == "__main__":
    run_command(main)
