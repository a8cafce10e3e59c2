"""Readers of the files that an evaluation and a training left, with checks."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.score_volumes import case_name
from kvseg_monai.report.slices import PictureError
from kvseg_monai.utils.model_files import RECORD


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


def read_training_record(weights: str | None, training: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the record of :class:`kvseg_monai.handlers.Checkpoints`, beside the weights or below a folder; {} if none.

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
