"""Timing side by side: tasks take turns within one run, so that the noise of a shared machine hits all alike."""

import random
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from tqdm import tqdm

WARM_UP_ROUNDS = 2


def wait_for_device() -> None:
    """Wait until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_in_turn(tasks: Mapping[str, Callable[[], object]], *, rounds: int, title: str) -> dict[str, np.ndarray]:
    """Call every task once per round, in a new random order each time, after two rounds that are not counted.

    Args:
        tasks: name -> what to time.
        rounds: how many are counted.
        title: of the progress bar.

    Returns:
        Seconds (rounds,) per task. Those of one index were measured next to each other: ``times[a] / times[b]`` is
        free of what slows the machine down for longer than a round, and its median is the ratio to report.
    """
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    shuffle = random.Random(0).shuffle  # whose turn comes next must not matter: caches, clock rates
    for _ in tqdm(range(WARM_UP_ROUNDS + rounds), desc=title, unit="round", leave=False, disable=None):
        shuffle(names)
        for name in names:
            wait_for_device()
            start = time.perf_counter()
            tasks[name]()
            wait_for_device()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[WARM_UP_ROUNDS:]) for name, values in seconds.items()}
