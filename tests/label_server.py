"""A real MONAI Label server with bundles of tiny networks, as `python -m kvseg_monai.label` starts it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from support import ROOT, TINY, config

STAND_IN = ROOT / "tests" / "stand_in"
PATIENCE = 600  # seconds, for one step on a busy machine


@cache
def environment() -> dict[str, str]:
    """The environment of a process that imports MONAI Label; see the stand-in on why it may be needed."""
    plain = {**os.environ, "PYTHONPATH": str(ROOT), "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    probe = subprocess.run([sys.executable, "-c", "import torchvision"], env=plain, capture_output=True, check=False)
    return plain if probe.returncode == 0 else {**plain, "PYTHONPATH": os.pathsep.join([str(ROOT), str(STAND_IN)])}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def save_weights(bundle: str, path: Path, *, seed: int = 0, **network: Any) -> Path:
    """Random weights of a bundle's network, tiny, that predict more than one class."""
    parser = ConfigParser()
    parser.read_config(config(bundle, "inference"))
    parser.update({"network_def#size": "tiny", "image_size": [64, 64]})
    parser.update({f"network_def#{name}": value for name, value in network.items()})
    torch.manual_seed(seed)
    made = parser.get_parsed_content("network_def").eval()
    last = [part for part in made.modules() if isinstance(part, torch.nn.Conv2d)][-1]
    with torch.no_grad():  # every class is as strong as the others, somewhere
        last.bias.zero_()
        logits = made(torch.nn.functional.pad(torch.randn(8, 1, 32, 32), [16] * 4)).movedim(1, 0).flatten(1)
        last.weight /= logits.std(1)[:, None, None, None]
        last.bias -= logits.mean(1) / logits.std(1)
    torch.save(made.state_dict(), path)
    return path


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers; a dead or mute one fails the test with the end of its log."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def running(line: Sequence[str], *, log: Path, address: str, environ: dict[str, str] | None = None, cwd: Path = ROOT):
    """Run a server until the block ends."""
    with log.open("w") as stream:
        process = subprocess.Popen(line, cwd=cwd, env=environ, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_for(address, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def label_server(
    folder: Path,
    studies: str | Path,
    *,
    bundles: Sequence[str],
    weights: Sequence[Path],
    options=TINY,
    cwd: Path = ROOT,
):
    """Start MONAI Label; give its client and the folder of its models."""
    from monailabel.client import MONAILabelClient

    address = f"http://127.0.0.1:{(port := free_port())}"
    given = ["--bundle", *bundles, "--weights", *map(str, weights), "--studies", str(studies), "--target", str(folder)]
    line = [sys.executable, "-m", "kvseg_monai.label", *given, "--port", str(port), *options]
    places = {"log": folder.with_suffix(".log"), "environ": environment(), "cwd": cwd}
    with running(line, address=f"{address}/info/", **places):
        yield MONAILabelClient(address, tmpdir=str(folder)), folder / "app" / "model"


def finished(status) -> dict[str, Any]:
    """Wait for a task of the server and return how it ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        reported = status()
        if reported.get("status") not in ("SUBMITTED", "RUNNING"):
            return reported
        time.sleep(0.5)
    raise AssertionError(f"the task does not end: {reported}")
