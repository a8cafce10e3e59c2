"""Turn an evaluation (and the training before it) into one HTML page that needs no network and no second file.

``python -m kvseg_monai.report --evaluation DIR [--training DIR] [--predictions DIR] --target report.html``
"""

import argparse
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kvseg_monai import figures
from kvseg_monai._version import __version__
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.files import write_text
from kvseg_monai.labels import colour_of
from kvseg_monai.metrics import CASE_METRICS, CLASS_METRICS
from kvseg_monai.provenance import commit
from kvseg_monai.scoring import case_name

MAX_CURVES = 12
CURVE_TITLES = {
    "train_loss": "Training loss",
    "val_mean_dice": "Validation Dice",
    "val_mean_jaccard": "Validation Jaccard",
    "lr": "Learning rate",
}
PHANTOM_NOTICE = "Phantom data: these pictures are computer-made, and the scores say nothing about patients."


def build_report(
    *,
    evaluation: str | os.PathLike[str],
    target: str | os.PathLike[str],
    training: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    title: str = "Segmentation report",
    notice: str | None = None,
) -> Path:
    """Write the report.

    Args:
        evaluation: folder with the ``metrics.json`` of :class:`kvseg_monai.scoring.ScoreVolumes`.
        target: the HTML file to write.
        training: folder searched, to any depth, for TensorBoard event files; None leaves the curves out.
        predictions: folder searched for ``<case>_seg.nii.gz`` or ``<case>.nii.gz``; None means ``evaluation``.
        title: heading of the page.
        notice: a warning about the data in a loud banner; None takes the one in ``metrics.json``, if any.

    Raises:
        InputError: ``metrics.json`` is missing, broken or of another layout, or a folder does not exist.
    """
    evaluation = Path(evaluation)
    for folder in filter(None, (training, predictions)):
        if not Path(folder).is_dir():
            raise InputError(f"{folder} is not a folder; give an existing one or leave the option out")
    metrics = read_metrics(evaluation / "metrics.json")
    patients = _per_patient(metrics)
    page = _environment().get_template("report.html.j2")
    text = page.render(
        title=title,
        notice=notice or metrics.get("notice") or (PHANTOM_NOTICE if metrics.get("phantom") else None),
        metrics=metrics,
        patients=len(patients),
        colours={name: colour_of(index) for index, name in enumerate(metrics["classes"])},
        patient_plot=figures.draw_patients(patients, list(metrics["classes"])),
        examples=list(_examples(metrics, evaluation, Path(predictions or evaluation))),
        training=training is not None,
        curves=_curves(training),
        manifest=_manifest(evaluation),
    )
    write_text(target, text)
    return Path(target)


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
            raise figures.PictureError(f"{len(found)} files named {found[0].name} could be the prediction.")
        if found:
            return found[0]
    raise figures.PictureError("No predicted label map was found; give its folder as --predictions.")


def read_scalars(folder: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """Scalars of all TensorBoard event files below a folder: tag -> (step, value), the latest run of a step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    latest: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for file in sorted(Path(folder).rglob("*tfevents*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                if event.wall_time >= latest[tag].get(event.step, (0.0, 0.0))[0]:
                    latest[tag][event.step] = (event.wall_time, event.value)
    return {tag: [(step, by_step[step][1]) for step in sorted(by_step)] for tag, by_step in latest.items()}


def _curves(training: str | os.PathLike[str] | None) -> list[dict[str, str]]:
    scalars = read_scalars(training) if training else {}
    known = list(CURVE_TITLES)
    order = sorted(scalars, key=lambda tag: (known.index(tag) if tag in known else len(known), tag))
    units = {tag: "epoch" if tag.startswith("val_") else "step" for tag in order}  # as MONAI's handlers count them
    return [
        {"title": CURVE_TITLES.get(t, t), "src": figures.draw_curve(scalars[t], unit=units[t])}
        for t in order[:MAX_CURVES]
    ]


def _per_patient(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Dice per patient and class, averaged over the patient's cases where it is defined."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in metrics["classes"]})
    for case in metrics["cases"]:
        for name, values in scores[str(case["patient"])].items():
            if case["classes"][name]["dice"] is not None:
                values.append(case["classes"][name]["dice"])
    return {p: {name: sum(v) / len(v) if v else None for name, v in s.items()} for p, s in scores.items()}


def _examples(metrics: Mapping[str, Any], evaluation: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Best, median and worst case by mean Dice, each with its picture or a note why there is none."""
    ranked = sorted((c for c in metrics["cases"] if c["dice"] is not None), key=lambda case: -case["dice"])
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    chosen = {0: [], 1: ["Best"], 2: ["Best", "Worst"]}.get(len(ranked), list(places))
    for place in chosen:
        case = ranked[places[place]]
        example = {"place": place if len(ranked) > 1 else "Only", "case": case}
        try:
            inputs = {key: _locate(case.get(key), evaluation) for key in ("image", "label")}
            prediction = find_prediction({**case, **inputs}, folder)
            picture = figures.draw_overlay(**inputs, prediction=prediction, classes=len(metrics["classes"]))
            yield {**example, "picture": picture}
        except figures.PictureError as note:
            yield {**example, "note": str(note)}


def _locate(path: str | None, evaluation: Path) -> str | None:
    """A recorded path as it is, or else relative to the evaluation's folder."""
    beside = evaluation / path if path else None
    return str(beside) if beside and not Path(path or "").exists() and beside.exists() else path


def _manifest(evaluation: Path) -> dict[str, str]:
    scored = datetime.fromtimestamp((evaluation / "metrics.json").stat().st_mtime).astimezone()
    rows = {"Scored": f"{scored:%Y-%m-%d %H:%M %Z}", "Report made": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"}
    return rows | versions()


def versions() -> dict[str, str]:
    """Return the versions of this code and of what it computes with, by name."""
    rows = {
        "kvseg_monai": __version__,
        "Commit": commit() or "not in a git repository",
        "Python": platform.python_version(),
    }
    return rows | {name: _version(name) for name in ("torch", "monai", "numpy", "nibabel")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kvseg_monai"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value, digits=3: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["plain"] = lambda name: str(name).replace("_", " ")
    return environment


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kvseg_monai.report", description="Make one HTML page of an evaluation."
    )
    parser.add_argument("--evaluation", required=True, metavar="DIR", help="folder with metrics.json")
    parser.add_argument("--training", metavar="DIR", help="folder with TensorBoard event files")
    parser.add_argument("--predictions", metavar="DIR", help="folder with <case>_seg.nii.gz (default: --evaluation)")
    parser.add_argument("--target", required=True, metavar="FILE", help="HTML file to write")
    parser.add_argument("--title", default="Segmentation report", help="heading of the page")
    parser.add_argument("--notice", metavar="TEXT", help="warning about the data, shown in a banner")
    print(f"wrote {build_report(**vars(parser.parse_args(arguments)))}")


if __name__ == "__main__":
    run_command(main)
