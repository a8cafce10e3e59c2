"""What an evaluation and a training left on disk, read and checked."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvseg_monai.checkpoints import RECORD
from kvseg_monai.errors import InputError
from kvseg_monai.metrics import CASE_METRICS, CLASS_METRICS
from kvseg_monai.report.slices import PictureError
from kvseg_monai.scoring import case_name

Scalars = dict[str, list[tuple[int, float]]]


def read_metrics(path: Path) -> dict[str, Any]:
    """Read and check ``metrics.json``.

    Raises:
        InputError: it is missing, no JSON, or lacks what the report shows.
    """
    remedy = "write it with the bundle's evaluate.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist; {remedy}, or give its folder as --evaluation") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}") from None
    try:
        protocols = list(metrics.get("protocols", {}).values())
        scored = [metrics["mean"], *metrics["cases"], *(protocol["mean"] for protocol in protocols)]
        tables = [scores["classes"] for scores in (metrics, *metrics["cases"], *protocols)]
        complete = all(metric in scores for scores in scored for metric in CASE_METRICS)
        complete &= all(m in table[name] for table in tables for name in metrics["classes"] for m in CLASS_METRICS)
        complete &= all("case" in case and "patient" in case for case in metrics["cases"])
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not (complete and metrics["cases"]):
        raise InputError(f'{path} lacks part of "mean", "classes" or "cases", or has no case at all; {remedy}')
    return metrics


def rank_cases(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cases to show, by mean Dice: ``Best``, ``Median`` and ``Worst``, fewer where there are fewer."""
    ranked = sorted((c for c in metrics["cases"] if c["dice"] is not None), key=lambda case: -case["dice"])
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    chosen = {0: [], 1: ["Only"], 2: ["Best", "Worst"]}.get(len(ranked), list(places))
    return {place: ranked[places.get(place, 0)] for place in chosen}


def locate(path: str | None, evaluation: Path) -> str | None:
    """Return a recorded path as it is, or else relative to the evaluation's folder."""
    beside = evaluation / path if path else None
    return str(beside) if beside and not Path(path or "").exists() and beside.exists() else path


def find_prediction(case: Mapping[str, Any], folder: Path) -> Path:
    """Find the predicted label map of a case below a folder; a path recorded in the case comes first.

    Raises:
        PictureError: none, or several of one name.
    """
    recorded = case.get("prediction")
    if recorded and Path(recorded).exists():
        return Path(recorded)
    inputs = {os.path.realpath(case[key]) for key in ("image", "label") if case.get(key)}
    files = [p for p in sorted(folder.rglob("*.nii*")) if p.is_file() and os.path.realpath(p) not in inputs]
    for name in (f"{case['case']}_seg", f"{case['case']}_pred", case["case"]):
        found = [path for path in files if case_name(path.name) == name]
        if len(found) > 1:
            raise PictureError(f"{len(found)} files named {found[0].name} could be the prediction.")
        if found:
            return found[0]
    raise PictureError("No predicted label map was found; give its folder as --predictions.")


def read_scalars(folder: str | os.PathLike[str]) -> Scalars:
    """Scalars of all TensorBoard event files below a folder: tag -> (step, value), the latest run of a step."""
    return {tag: [(step, value) for step, value, _ in events] for tag, events in read_events(folder).items()}


def read_events(folder: str | os.PathLike[str]) -> dict[str, list[tuple[int, float, float]]]:
    """As :func:`read_scalars`, with the time at which each was written, in seconds since 1970."""
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


def read_training_record(weights: str | None, training: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return what :class:`kvseg_monai.checkpoints.Checkpoints` told, beside the weights or below a folder; {} if none.

    Raises:
        InputError: the file is no JSON object.
    """
    files = [Path(weights).with_name(RECORD)] if weights else []
    files += sorted(Path(training).rglob(RECORD)) if training else []
    file = next(filter(Path.is_file, files), None)
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{file} is not what a training writes there; move it away or train again") from None
