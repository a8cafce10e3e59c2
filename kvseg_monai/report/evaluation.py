"""The page of an evaluation, with the training before it and the network that it scored."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from kvseg_monai.cost.counting import count_macs
from kvseg_monai.errors import InputError
from kvseg_monai.metrics.summary import read_metrics
from kvseg_monai.report import figures, slices
from kvseg_monai.report.attention_section import attention_section
from kvseg_monai.report.inspection import Inspection, InspectionRequest, inspect_attention
from kvseg_monai.report.page import Rows, describe_report, describe_run, moment, refuse_page, write_page
from kvseg_monai.report.readers import find_prediction, locate, rank_cases, read_training_record
from kvseg_monai.utils.labels import colour_of
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.run_record import hash_file
from kvseg_monai.utils.tensorboard import read_events

MAX_CURVES = 12
CURVE_TITLES = {
    "train_loss": "Training loss",
    "val_mean_dice": "Validation Dice",
    "val_mean_jaccard": "Validation Jaccard",
    "lr": "Learning rate",
}
PHANTOM_NOTICE = "Phantom data: these pictures are computer-made, and the scores say nothing about patients."

Events = Mapping[str, list[tuple[int, float, float]]]


def build_report(
    *,
    evaluation: str | os.PathLike[str],
    target: str | os.PathLike[str],
    training: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    attention: InspectionRequest | None = None,
    title: str = "Segmentation report",
    notice: str | None = None,
) -> Path:
    """Write the report.

    Args:
        evaluation: folder with the ``metrics.json`` of :class:`kvseg_monai.handlers.score_volumes.ScoreVolumes`.
        target: the HTML file to write.
        training: folder searched, to any depth, for TensorBoard event files; None leaves the curves out.
        predictions: folder searched for ``<case>_seg.nii.gz`` or ``<case>.nii.gz``; None means ``evaluation``.
        attention: network and slice of which attention maps are shown; None leaves them out.
        title: heading of the page.
        notice: a warning about the data in a loud banner; None takes the one in ``metrics.json``, if any.

    Raises:
        InputError: ``metrics.json`` is missing, broken or of another layout, a folder does not exist, ``attention``
            does not fit (see :func:`kvseg_monai.report.inspection.inspect_attention`), or ``target`` lies in what is
            read, is no page's name, or is there and not ours.
    """
    sources = {"evaluation": evaluation, "predictions": predictions, "training": training}
    refuse_page(target)
    refuse_overlap(sources=sources, targets={"target": target})
    evaluation = Path(evaluation)
    for folder in (training, predictions):
        if folder and not Path(folder).is_dir():
            raise InputError(f"{folder} is not a folder; give an existing one or leave the option out")
    metrics = read_metrics(evaluation / "metrics.json")
    patients = _per_patient(metrics)
    events = read_events(training) if training else {}
    inspection = inspect_attention(attention, metrics, evaluation) if attention else None
    weights = attention.weights if attention else None
    content = {
        "title": title,
        "notice": notice or metrics.get("notice") or (PHANTOM_NOTICE if metrics.get("phantom") else None),
        "metrics": metrics,
        "patients": len(patients),
        "colours": {name: colour_of(index) for index, name in enumerate(metrics["classes"])},
        "patient_plot": figures.draw_patients(patients, list(metrics["classes"])),
        "examples": list(_examples(metrics, evaluation, Path(predictions or evaluation))),
        "attention": attention_section(inspection, list(metrics["classes"])) if inspection else None,
        "training": training is not None,
        "curves": _curves(events),
        "cost": _cost(metrics, inspection),
        "manifest": {
            "Evaluation": _describe_evaluation(metrics, evaluation / "metrics.json"),
            "Training": _describe_training(read_training_record(weights, training), events),
            "Attention maps": _describe_inspection(attention) if attention else {},
            "This page": describe_report(),
        },
    }
    return write_page(target, "evaluation.html.j2", content)


def _curves(events: Events) -> list[dict[str, str]]:
    known = list(CURVE_TITLES)
    order = sorted(events, key=lambda tag: (known.index(tag) if tag in known else len(known), tag))
    units = {tag: "epoch" if tag.startswith("val_") else "step" for tag in order}  # as MONAI's handlers count them
    points = {tag: [(step, value) for step, value, _ in events[tag]] for tag in order}
    return [
        {"title": CURVE_TITLES.get(t, t), "src": figures.draw_curve(points[t], unit=units[t])}
        for t in order[:MAX_CURVES]
    ]


def _per_patient(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the Dice per patient and class, averaged over the patient's cases where it is defined."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in metrics["classes"]})
    for case in metrics["cases"]:
        for name, values in scores[str(case["patient"])].items():
            if case["classes"][name]["dice"] is not None:
                values.append(case["classes"][name]["dice"])
    return {p: {name: sum(v) / len(v) if v else None for name, v in s.items()} for p, s in scores.items()}


def _examples(metrics: Mapping[str, Any], evaluation: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the best, median and worst case by mean Dice, each with its picture or a note why there is none."""
    slice_axis = metrics.get("manifest", {}).get("settings", {}).get("slice_axis", "axial")
    for place, case in rank_cases(metrics).items():
        try:
            inputs = {key: locate(case.get(key), evaluation) for key in ("image", "label")}
            prediction = find_prediction({**case, **inputs}, folder)
            picture = slices.draw_overlay(
                image=inputs["image"],
                label=inputs["label"],
                prediction=prediction,
                classes=len(metrics["classes"]),
                slice_axis=slice_axis,
            )
            yield {"place": place, "case": case, "picture": picture}
        except slices.PictureError as note:
            yield {"place": place, "case": case, "note": str(note)}


def _cost(metrics: Mapping[str, Any], inspection: Inspection | None) -> dict[str, Any]:
    """Return what is known of the cost: parameters, MACs of one forward of the canvas, seconds of the evaluation."""
    facts = metrics.get("manifest", {})
    cost = {"parameters": facts.get("parameters"), "seconds": facts.get("seconds"), "macs": None, "canvas": None}
    if inspection:
        image = torch.zeros(1, inspection.channels, *inspection.image.shape)
        cost |= {"macs": count_macs(inspection.network, image)[0], "canvas": inspection.image.shape}
        cost["parameters"] = sum(weight.numel() for weight in inspection.network.parameters())
    return cost


def _describe_evaluation(metrics: Mapping[str, Any], file: Path) -> Rows:
    facts = describe_run(metrics.get("manifest", {}))
    return facts or {"Scored": moment(file.stat().st_mtime), "Record": "this evaluation has none of itself"}


def _describe_training(record: Mapping[str, Any], events: Events) -> Rows:
    times = [time for points in events.values() for _, _, time in points]
    curves = {"Curves": f"{moment(min(times))} to {moment(max(times))}"} if times else {}
    return describe_run(record) | curves


def _describe_inspection(request: InspectionRequest) -> Rows:
    weights = Path(request.weights)
    overrides = "; ".join(f"{name} = {value}" for name, value in request.overrides.items())
    return {
        "Bundle": Path(request.bundle).resolve().name,
        "Weights": f"{weights.name}, sha256 {hash_file(weights)}…",
        "Overrides": overrides or "none",
    }
