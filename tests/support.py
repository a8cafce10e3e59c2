"""Helpers that several test files use: bundles on the command line, MR-like volumes, label maps."""

import logging
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml

from kvseg_monai.utils.records import RECORD

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = list(yaml.safe_load((ROOT / "bundles" / "bundles.yaml").read_text())["bundles"])

ONE_PER_NET = ("setr_kv_segmentation", "transunet_qkv_segmentation", "cvt_kv_pos_segmentation")

TINY = ("--network_def#size", "tiny", "--image_size", "[64,64]", "--slices_at_once", "4")


def make_volume(seed: int, shape: tuple[int, int, int] = (70, 60, 6)) -> tuple[np.ndarray, np.ndarray]:
    """A body with three bright balls, one per class, and two empty slices; int16 image and uint8 labels."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    body = ((x - shape[0] / 2) / (0.42 * shape[0])) ** 2 + ((y - shape[1] / 2) / (0.4 * shape[1])) ** 2 < 1
    image = 300.0 * body
    label = np.zeros(shape, np.uint8)
    for value, place in enumerate(((0.35, 0.4), (0.6, 0.35), (0.5, 0.65)), start=1):
        centre = np.array(place) * shape[:2] + rng.uniform(-2, 2, 2)
        ball = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 36) & (z >= 2)
        image[ball] = 400 + 150 * value
        label[ball] = value
    return (image + rng.normal(0, 15, shape)).clip(0).astype(np.int16), label


def block(low: tuple, high: tuple, *, value: int = 1, shape: tuple[int, int, int] = (12, 12, 6)) -> np.ndarray:
    """A label map with one filled box, from ``low`` up to but not including ``high``."""
    volume = np.zeros(shape, dtype=np.uint8)
    volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    return volume


def names_in(folder: Path) -> list[str]:
    """The names in a folder, without the record that each folder has that we wrote into."""
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)


def config(bundle: str, name: str) -> str:
    return str(ROOT / "bundles" / bundle / "configs" / f"{name}.json")


def command(bundle: str, name: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", config(bundle, name), *TINY, *overrides]


@contextmanager
def as_a_process(folder: Path, arguments: list[str]) -> Iterator[None]:
    """Working directory and command line of a process; what a program sets for its own process is set back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ended = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules after import of package")  # as it should be
        patch.chdir(folder)
        patch.setattr(sys, "argv", arguments)
        patch.setattr(sys, "excepthook", sys.__excepthook__)
        patch.setattr(os, "_exit", sys.exit)
        patch.setattr(os, "execv", _become)
        root.handlers[:] = []
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, ended)
            root.handlers[:] = handlers
            root.setLevel(level)


def run_here(line: list[str], folder: Path) -> CompletedProcess:
    """Run ``PYTHON -m MODULE WORDS`` in this process, which has imported already what takes another one seconds.

    Exit code and output are those of a process, and so is what becomes of an exception: it goes to the program's hook.
    """
    _, _, module, *words = line
    code: int | str | None = 0
    with (
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as errors,
        as_a_process(folder, [module, *words]),
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        except Exception:
            code = _end_by_hook()
    return CompletedProcess(line, code or 0, output.getvalue(), errors.getvalue())


def _become(_: str, line: list[str]) -> None:
    _, _, module, *sys.argv[1:] = line
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _end_by_hook() -> int:
    try:
        sys.excepthook(*sys.exc_info())
    except SystemExit as end:
        return end.code
    return 1


def run(bundle: str, name: str, folder: Path, dataset: Path, *overrides: str) -> CompletedProcess:
    """Run a bundle from an unrelated working directory; its weights and results go to ``folder``."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True, exist_ok=True)
    line = command(bundle, name, "--bundle_root", str(folder), "--dataset_dir", str(dataset), *overrides)
    return run_here(line, elsewhere)


def succeed(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr
