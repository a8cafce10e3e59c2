"""Compare this checkout's speed with another commit's: ``python benchmarks/against.py fb0e554 infer --volume DIR``.

Both run MONAI's runner on a bundle, in turn, as whole processes with one thread; what counts is the CPU time that the
system accounts to them, the kernel's share included. A ratio below 1 says that this checkout needs less.

``infer``: one volume to its label map, imports included. ``train``: a step of 16 slices, from the difference between a
longer and a shorter training, so that imports, checks and caching do not count. ``start``: a training up to and with
its first step.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvseg_monai.utils.provenance import commit, machine

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = """
import sys, torch, kvseg_monai
torch.manual_seed(0)
network, size, side, target = sys.argv[1:]
torch.save(getattr(kvseg_monai, network)(1, 4, int(side), attention="kv", size=size).state_dict(), target)
"""
CLASSES = {"setr": "SETR", "transunet": "TransUNet", "cvt": "CvT"}


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Give a folder with the files of a commit."""
    folder = Path(tempfile.mkdtemp(prefix="against-"))
    try:
        archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def cpu_seconds(line: list[str], root: Path) -> tuple[float, float]:
    """Run a command on the code in ``root``; return its CPU seconds and the most memory that it held, in GB."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(line, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(line)} ended with {process.returncode}:\n{said[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def bundle_run(root: Path, net: str, workflow: str, *options: object) -> list[str]:
    """Return the command that runs a bundle of ``root``."""
    bundle = root / "bundles" / f"{net}_kv_segmentation"
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", f"{bundle}/configs/{workflow}.json"]
    return [*line, "--bundle_root", str(bundle), *map(str, options)]


def infer(root: Path, options: argparse.Namespace, extra: list[str]) -> tuple[float, float]:
    """Return the cost of segmenting one volume with the same weights, imports included."""
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or Path(folder, "model.pt")
        if not options.weights:
            cpu_seconds(
                [sys.executable, "-c", WEIGHTS, CLASSES[options.net], options.size, str(options.side), str(weights)],
                root,
            )
        places = ("--dataset_dir", options.volume, "--output_dir", f"{folder}/out", "--ckpt_path", weights)
        shape = ("--network_def#size", options.size, "--image_size", f"[{options.side},{options.side}]")
        return cpu_seconds(bundle_run(root, options.net, "inference", *places, *shape, *extra), root)


def training(root: Path, options: argparse.Namespace, epochs: int, cases: int, extra: list[str]) -> float:
    """Return the CPU seconds of a training of so many epochs on the first cases of the dataset's training list."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(options.dataset_dir)
        datalist = json.loads((source / "datalist.json").read_text(encoding="utf-8"))
        listed = datalist["training"][: cases + 4]
        datalist = {**datalist, "training": listed[:cases], "validation": listed[cases:], "test": []}
        data = Path(folder, "data")
        for entry in listed:
            for path in (Path(entry["image"]), Path(entry["label"])):
                (data / path).parent.mkdir(parents=True, exist_ok=True)
                (data / path).symlink_to((source / path).resolve())
        (data / "datalist.json").write_text(json.dumps(datalist), encoding="utf-8")
        places = ("--dataset_dir", data, "--ckpt_dir", f"{folder}/models")
        shape = ("--network_def#size", options.size, "--image_size", f"[{options.side},{options.side}]")
        length = ("--output_dir", f"{folder}/eval", "--max_epochs", epochs, "--val_interval", 1000)
        return cpu_seconds(bundle_run(root, options.net, "train", *places, *shape, *length, *extra), root)[0]


def train(root: Path, options: argparse.Namespace, extra: list[str]) -> tuple[float, None]:
    """Return the CPU seconds of a step: 8 steps an epoch, three epochs less one."""
    longer, shorter = (training(root, options, epochs, 32, extra) for epochs in (3, 1))
    return (longer - shorter) / 16, None


def start(root: Path, options: argparse.Namespace, extra: list[str]) -> tuple[float, None]:
    """Return the CPU seconds of a training with one step, imports included."""
    return training(root, options, 1, 4, extra), None


def main() -> None:
    """Run both in turn and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("what", choices=("infer", "train", "start"))
    parser.add_argument("--net", choices=CLASSES, default="transunet")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--side", type=int, default=256, help="of the canvas (default: %(default)s)")
    parser.add_argument("--volume", type=Path, help="infer: a folder with one volume")
    parser.add_argument("--weights", type=Path, help="infer: trained weights; random ones by default")
    parser.add_argument("--dataset_dir", type=Path, help="train, start: a folder with datalist.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="options for this checkout alone")
    options = parser.parse_args()
    needed = "volume" if options.what == "infer" else "dataset_dir"
    if getattr(options, needed) is None:
        parser.error(f"{options.what} needs --{needed}")
    work = {"infer": infer, "train": train, "start": start}[options.what]
    with checkout(options.commit) as other:
        rounds = [(work(other, options, []), work(ROOT, options, options.extra)) for _ in range(options.rounds)]
    print(" ".join([options.what, options.net, options.size, *options.extra, "with one thread on", machine()]))
    for side, name in enumerate((options.commit, commit() or "this folder")):
        seconds, memory = zip(*(pair[side] for pair in rounds), strict=True)
        peak = f", {max(memory):.2f} GB" if options.what == "infer" else ""
        print(f"{name}: {statistics.median(seconds):.2f} CPU s{peak}")
    ratios = [ours / theirs for (theirs, _), (ours, _) in rounds]
    print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
