"""Speed on a GPU, as Markdown tables: ``python benchmarks/gpu.py --out DIR``; ``benchmarks/gpu.sh`` runs this and more.

``steps``: training steps a second of each network, from a batch of slices on the device to the optimizer's step, with
the bundles' augmentation, loss and optimizer. ``volumes``: a volume to its label map on the file's grid. ``processes``:
the steps of several trainings at once on the one device, added up. Each row is written as soon as it is measured, so
that what ends early leaves what was done.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.losses import DiceCELoss

import kvseg_monai
from kvseg_monai import transforms
from kvseg_monai.blocks import parameter_groups
from kvseg_monai.cost.timing import wait_for_device
from kvseg_monai.inferers import PrecisionInferer, VolumeInferer
from kvseg_monai.transforms.invert import Axis, label_map
from kvseg_monai.utils import tune_cpu, tune_gpu, use_device
from kvseg_monai.utils.provenance import commit, machine
from kvseg_monai.utils.tensors import laid_out

NETS, SIZES, PRECISIONS = ("SETR", "TransUNet", "CvT"), ("tiny", "base"), ("fp32", "bf16")
CLASSES, SLICES, CANVAS = 4, 16, 192
VOLUME = (341, 207, 144)  # of the body, in voxels; the file has as many slices of 360 x 310
AFFINE = {"prob": 0.9, "rotate_range": 0.26, "scale_range": [0.2, 0.2], "translate_range": [19, 19]}


def network_of(name: str, size: str, options: argparse.Namespace) -> torch.nn.Module:
    """Return a network of a size, on the device."""
    torch.manual_seed(0)
    made = getattr(kvseg_monai, name)(1, CLASSES, (options.canvas, options.canvas), attention="kv", size=size)
    return laid_out(made, options.device)


def training_step(name: str, size: str, precision: str, options: argparse.Namespace) -> Callable[[], None]:
    """Return a function that makes a step, as the bundles' training makes it."""
    network = network_of(name, size, options)
    groups = parameter_groups(network, learning_rate=1e-3, weight_decay=0.05, query_bias_lr_scale=1.0)
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    inferer, device, side = PrecisionInferer(precision), torch.device(options.device), options.canvas
    prepare = transforms.PrepareAugmentedBatch(
        [
            transforms.RandAffineBatchd(
                ["image", "label"], spatial_size=[side, side], mode=["bilinear", "nearest"], **AFFINE
            ),
            transforms.RandAdjustContrastBatchd("image", prob=0.5, gamma=[0.6, 1.6]),
            transforms.RandGaussianNoiseBatchd("image", prob=0.3, std=0.05),
            transforms.RandScaleIntensityBatchd("image", prob=0.5, factors=0.2),
        ]
    )
    image = torch.rand(options.slices, 1, side + 20, side + 12, device=device)
    batch = {"image": image, "label": torch.randint(CLASSES, image.shape, device=device).float()}

    def step() -> None:
        images, labels = prepare(batch, device, True)
        optimizer.zero_grad()
        loss(inferer(images, network.train()), labels).backward()
        optimizer.step()

    return step


def inference(name: str, size: str, precision: str, options: argparse.Namespace) -> Callable[[], None]:
    """Return a function that segments a volume, up to its label map on the device."""
    network = network_of(name, size, options).eval()
    inferer = VolumeInferer((options.canvas, options.canvas), precision=precision)
    volume = torch.rand(1, 1, *options.volume, device=options.device)
    sides = (360, 310, options.volume[2])
    axes = [
        Axis(source, torch.arange(side, dtype=torch.float64) - (side - inside) // 2)
        for source, (side, inside) in enumerate(zip(sides, options.volume, strict=True))
    ]

    @torch.no_grad()
    def infer() -> None:
        label_map(inferer(volume, network)[0], axes)

    return infer


def rate(work: Callable[[], None], seconds: float, *, warm_up: int = 3, at_once: int = 5) -> float:
    """Return how often a second some work is done: the median over groups, each of which is waited for once."""
    for _ in range(warm_up):
        work()
    wait_for_device()
    end, rates = time.perf_counter() + seconds, []
    while not rates or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(at_once):
            work()
        wait_for_device()
        rates.append(at_once / (time.perf_counter() - start))
    return median(rates)


def memory(device: str) -> str:
    """Return the most memory of the device that was in use since this was last asked, in GB."""
    if not device.startswith("cuda"):
        return "-"
    used = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return f"{used:.2f}"


def steps(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the rows of the table of training steps."""
    yield ["network", "size", "precision", "steps a second", "ms a step", "memory, GB"]
    for name, size, precision in itertools.product(options.nets, options.sizes, PRECISIONS):
        if not options.skips(precision):
            found = rate(training_step(name, size, precision, options), options.seconds)
            yield [name, size, precision, f"{found:.2f}", f"{1e3 / found:.1f}", memory(options.device)]


def volumes(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the rows of the table of inference."""
    yield ["network", "size", "precision", "s a volume", "slices a second", "memory, GB"]
    for name, size, precision in itertools.product(options.nets, options.sizes, PRECISIONS):
        if not options.skips(precision):
            work = inference(name, size, precision, options)
            found = rate(work, options.seconds, warm_up=1, at_once=1)
            row = [f"{1 / found:.3f}", f"{found * options.volume[2]:.0f}", memory(options.device)]
            yield [name, size, precision, *row]


def processes(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the rows of the table of trainings at once, each in a process of its own; they begin together."""
    yield ["network", "size", "precision", "processes", "steps a second, all", "of one process"]
    line = [sys.executable, __file__, "--worker", "--device", options.device, "--seconds", str(options.seconds)]
    line += ["--quick"] if options.quick else []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[1]}
    workers = [subprocess.Popen(line, **pipes) for _ in range(max(options.at_once))]
    try:
        for name, precision in itertools.product(options.nets, PRECISIONS):
            if options.skips(precision):
                continue
            one = 0.0
            for count in options.at_once:
                ask(workers[:count], json.dumps([name, "tiny", precision]))  # they are warm when they answer
                total = sum(map(float, ask(workers[:count], "go")))
                one = one or total
                yield [name, "tiny", precision, str(count), f"{total:.2f}", f"{total / one:.2f}"]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def ask(workers: Sequence["subprocess.Popen[str]"], line: str) -> list[str]:
    """Send a line to each, then return the line that each answers."""
    for worker in workers:
        worker.stdin.write(f"{line}\n")
        worker.stdin.flush()
    return [worker.stdout.readline() for worker in workers]


def work(options: argparse.Namespace) -> None:
    """Do what :func:`processes` asks for: make a step and warm up, or measure the steps a second."""
    step: Callable[[], None] = list
    for line in map(str.strip, sys.stdin):
        if line == "go":
            print(rate(step, options.seconds, warm_up=0), flush=True)
        else:
            step = training_step(*json.loads(line), options)
            rate(step, 0)
            print("warm", flush=True)


TABLES: dict[str, Callable[[argparse.Namespace], Iterator[list[str]]]] = {
    "steps": steps,
    "volumes": volumes,
    "processes": processes,
}


def write(table: str, options: argparse.Namespace) -> None:
    """Write a table, row by row, to the standard output and to a file of its name."""
    with (options.out / f"{table}.md").open("w", encoding="utf-8") as file:
        for number, row in enumerate(TABLES[table](options)):
            lines = ["| " + " | ".join(row) + " |", *(["| --- " * len(row) + "|"] if number == 0 else [])]
            for line in lines:
                print(line, file=file, flush=True)
                print(line, flush=True)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the tables")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=2.0, help="that a row is measured")
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs, not to measure")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.canvas, options.slices, options.volume = (64, 2, (70, 60, 4)) if options.quick else (CANVAS, SLICES, VOLUME)
    options.nets, options.sizes = NETS, SIZES[:1] if options.quick else SIZES
    options.at_once = (1, 2) if options.quick else (1, 4, 8)
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    options.skips = lambda precision: options.quick and precision == "bf16"
    return options


def main() -> None:
    """Measure, and write the tables."""
    options: Any = parse()
    use_device(options.device)
    tune_cpu()
    tune_gpu(options.device)
    if options.worker:
        work(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{machine(options.device)}, torch {torch.__version__}, commit {commit() or 'unknown'}")
    what = f"{options.slices} x {options.canvas} x {options.canvas}"
    print(f"A step: {what} pixels. A volume: {' x '.join(map(str, options.volume))} voxels.", flush=True)
    for table in options.tables:
        print(f"\n### {table}\n", flush=True)
        write(table, options)


if __name__ == "__main__":
    main()
