"""Make the arms of a study, a process each, one or several at once, with an estimate of the time that is left."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kvseg_monai.study import dataset, results
from kvseg_monai.study.arm import BUSY, EPOCH
from kvseg_monai.study.plan import Arm, Study
from kvseg_monai.study.state import arms_dir, configuration, refuse_other_configurations, write_configuration
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.overlap import refuse_overlap

logger = logging.getLogger(__name__)
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class Tally:
    """Count of the arms: made, finished before, left to others, broken."""

    made: list[str] = field(default_factory=list)
    finished_before: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def run_study(study: Study, arms: Sequence[Arm], *, device: str, redo: bool = False, jobs: int = 1) -> int:
    """Make the arms that are not finished, a process each; a broken one does not stop the others.

    Args:
        study: the whole study, whose finished arms must all be of this configuration.
        arms: those to make here; one that another process has in work is left to it.
        device: ``cpu`` or ``cuda:N``.
        redo: set arms of another configuration aside and make them again.
        jobs: arms at once. They share the CPU's threads, or the GPU.

    Returns:
        The exit code: 1 when an arm broke.

    Raises:
        InputError: for data that do not fit the split, arms of another configuration without ``redo``, an output folder
            that lies in the data or the other way round, or files in it that are not ours.
    """
    refuse_overlap(sources={"dataset_dir": study.dataset_dir}, targets={"output_dir": study.output_dir})
    dataset.write_datalist(study)
    refuse_other_configurations(study, redo=redo)
    names = [arm.name for arm in study.arms]
    results.gather(arms_dir(study), names, study.output_dir)
    refuse_foreign(study.output_dir / name for name in results.GATHERED)
    todo = [arm for arm in arms if not results.finished(arms_dir(study), [arm.name])]
    tally = Tally(finished_before=[arm.name for arm in arms if arm not in todo])
    epochs = {arm.name: int(configuration(study, arm)["max_epochs"]) for arm in todo}
    jobs = max(1, min(jobs, len(todo)))
    logger.info(
        "%d arms to make on %s%s, %d finished; in %s",
        *(len(todo), device, f", {jobs} at once" if jobs > 1 else "", len(arms) - len(todo), study.output_dir),
    )
    interval = 0.2 if sys.stderr.isatty() else 30
    with (
        logging_redirect_tqdm(),
        tqdm(total=sum(epochs.values()), unit="epoch", mininterval=interval, smoothing=0) as bar,
    ):
        _Work(study, device=device, jobs=jobs, epochs=epochs, bar=bar, tally=tally).make(todo)
    results.gather(arms_dir(study), [arm.name for arm in study.arms], study.output_dir)
    return _report(study, tally)


class _Work:
    """Arms in work: a thread for each of ``jobs``, which starts a process an arm and waits for it.

    Bar, tally and results are touched under one lock.
    """

    def __init__(
        self, study: Study, *, device: str, jobs: int, epochs: Mapping[str, int], bar: "tqdm[Any]", tally: Tally
    ) -> None:
        self.study, self.device, self.jobs, self.epochs, self.bar, self.tally = study, device, jobs, epochs, bar, tally
        self.lock = threading.Lock()
        self.in_work: dict[str, subprocess.Popen[str]] = {}  # by the name of the arm
        self.stopped = False

    def make(self, arms: Sequence[Arm]) -> None:
        """Make the arms; where this is interrupted, or one cannot be begun, those in work end."""
        if self.jobs == 1:
            for arm in arms:
                self._make(arm)
            return
        pool = ThreadPoolExecutor(self.jobs)
        try:
            for made in as_completed([pool.submit(self._make, arm) for arm in arms]):
                made.result()
        except BaseException:
            with self.lock:
                self.stopped = True
                for process in self.in_work.values():
                    process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, arm: Arm) -> None:
        """Make one arm and enter into the tally how it ended."""
        folder = arms_dir(self.study) / arm.name
        start = time.monotonic()
        code = BUSY
        if not _in_work(folder):
            write_configuration(self.study, arm)
            code = self._run_process(arm)
        with self.lock:
            if self.stopped:
                return
            if code == 0:
                self.tally.made.append(arm.name)
                logger.info("%s finished after %.0f s here", arm.name, time.monotonic() - start)
                results.gather(arms_dir(self.study), [each.name for each in self.study.arms], self.study.output_dir)
            elif code == BUSY:
                self.tally.busy.append(arm.name)
                self.bar.total = (self.bar.total or 0) - self.epochs[arm.name]
            else:
                self.tally.broken[arm.name] = _last_sentence(folder / "log.txt")
                logger.error("%s broke: %s", arm.name, self.tally.broken[arm.name])

    def _run_process(self, arm: Arm) -> int:
        """Run the arm, its log in ``log.txt``; move the bar by the epochs that it reports; return the exit code."""
        folder = arms_dir(self.study) / arm.name
        line = [sys.executable, "-m", "kvseg_monai.study.arm", "--folder", str(folder), "--device", self.device]
        line += ["--bundle", str(self.study.bundles_dir / arm.bundle), "--jobs", str(self.jobs)]
        line += [
            "--dataset_dir",
            str(self.study.output_dir / dataset.FOLDER),
            "--base_dir",
            str(self.study.dataset_dir),
        ]
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            with self.lock:
                if self.stopped:
                    return BUSY
                environment = _environment(self.jobs)
                process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
                self.in_work[arm.name] = process
                self.bar.set_description(", ".join(self.in_work))
            try:
                with process:
                    self._follow(arm, process)
                    return process.wait()
            except BaseException:
                process.terminate()
                raise
            finally:
                with self.lock:
                    del self.in_work[arm.name]

    def _follow(self, arm: Arm, process: "subprocess.Popen[str]") -> None:
        """Move the bar by the epochs that an arm reports, until its output ends."""
        done = 0
        for output in process.stdout or ():
            if not output.startswith(EPOCH):
                continue
            epoch = int(output.removeprefix(EPOCH))
            with self.lock:
                if not done:  # what an earlier run did takes no time now
                    self.bar.initial += epoch - 1
                self.bar.update(epoch - done)
            done = epoch
        with self.lock:
            self.bar.update(self.epochs[arm.name] - done)


def _in_work(folder: Path) -> bool:
    """Say whether another process holds the arm, or whether it has finished it meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / results.LOCK, timeout=0):
            return (folder / results.RECORD).is_file()
    except Timeout:
        return True


def _environment(jobs: int) -> Mapping[str, str]:
    """Return the environment of an arm: torchrun shares out the arms and has no say within one.

    Of several at once each has its share of the threads that one would have.
    """
    kept = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    return {**kept, "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))} if jobs > 1 else kept


def _last_sentence(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['no message'])[-1]} (all of it: {log})"


def _report(study: Study, tally: Tally) -> int:
    logger.info("%d arms made, %d finished before", len(tally.made), len(tally.finished_before))
    if tally.busy:
        logger.info("left to another process: %s", ", ".join(tally.busy))
    for name, sentence in tally.broken.items():
        print(f"broken arm {name}: {sentence}", file=sys.stderr)
    if tally.broken:
        print(f"{len(tally.broken)} arm(s) broke; the same command makes them again", file=sys.stderr)
    return 1 if tally.broken else 0


def choose_device(number: int) -> str:
    """Return the ``number``-th GPU, counted round, or the CPU where there is none."""
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
