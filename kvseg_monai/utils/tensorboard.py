"""Scalars of a training, read from TensorBoard's event files."""

import os
from collections import defaultdict
from pathlib import Path

Scalars = dict[str, list[tuple[int, float]]]


def read_scalars(folder: str | os.PathLike[str]) -> Scalars:
    """Return the scalars of all TensorBoard event files below a folder: tag -> (step, value), of a step the latest."""
    return {tag: [(step, value) for step, value, _ in events] for tag, events in read_events(folder).items()}


def read_events(folder: str | os.PathLike[str]) -> dict[str, list[tuple[int, float, float]]]:
    """Return what :func:`read_scalars` does, with the time at which each was written, in seconds since 1970."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    latest: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for file in sorted(Path(folder).rglob("*tfevents*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                if event.wall_time >= latest[tag].get(event.step, (0.0, 0.0))[0]:
                    latest[tag][event.step] = (event.wall_time, event.value)
    return {
        tag: [(step, by_step[step][1], by_step[step][0]) for step in sorted(by_step)] for tag, by_step in latest.items()
    }
