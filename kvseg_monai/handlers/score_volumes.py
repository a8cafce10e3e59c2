"""An ignite handler that scores whole volumes on their original grid and writes ``metrics.json`` and ``metrics.csv``.

Shapes: ``item["pred"]`` and ``item["label"]`` are (1, X, Y, Z) integer label maps of one decollated case.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing

from kvseg_monai.data.nifti import without_suffix
from kvseg_monai.errors import InputError
from kvseg_monai.inferers import Ensemble
from kvseg_monai.metrics.case import CASE_METRICS, score_case
from kvseg_monai.metrics.summary import FILES, summarise, write_metrics
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.geometry import array_axes, check_slice_axis, plane_of
from kvseg_monai.utils.run_record import RunRecord

logger = logging.getLogger(__name__)

COUNTS = ("false_negatives", "false_positives")  # of scans, per class


class ScoreVolumes:
    """Handler that scores every case of an evaluation, then writes, logs and publishes the summary.

    Each iteration's ``engine.state.output`` is a list of decollated dictionaries, the usual form in MONAI. At the end
    of the epoch the summary goes to ``output_dir`` (rank 0 only), to the log, and as ``val_mean_dice``,
    ``val_mean_jaccard``, ``val_mean_weighted_jaccard``, ``val_mean_hd95_mm`` (NaN where undefined) and
    ``val_<class>_dice`` to ``engine.state.metrics``. Attach it before handlers that read those. What the run was goes
    to the summary as ``manifest`` (see :class:`kvseg_monai.utils.run_record.RunRecord`).

    Args:
        output_dir: where ``metrics.json`` and ``metrics.csv`` go.
        class_names: foreground classes; label value ``i + 1`` is ``class_names[i]``.
        notice: a sentence about the data that every report must show, such as that they are a phantom.
        configuration: what :func:`kvseg_monai.utils.describe_configuration` returns, for the manifest.
        ensemble: how probabilities are put together, whose facts go to the manifest; None for one network alone.
        pred_key: key of the predicted label map, inverted to the original grid.
        label_key: key of the reference, loaded channel-first and otherwise untouched.
        image_key: key of the image; its file name names the case.
        slice_axis: that of :class:`kvseg_monai.transforms.SliceOrientationd`: scores per slice are of the plane that
            was cut.

    Raises:
        InputError: at an item without these keys, of another shape, or with undeclared labels; it names the case.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        *,
        notice: str | None = None,
        configuration: Mapping[str, Any] = MappingProxyType({}),
        ensemble: Ensemble | None = None,
        pred_key: str = "pred",
        label_key: str = "label",
        image_key: str = "image",
        slice_axis: str = "axial",
    ) -> None:
        check_slice_axis(slice_axis)
        self.output_dir = Path(output_dir)
        self.class_names = class_names if isinstance(class_names, str) else list(class_names)
        self.ensemble = ensemble
        self.notice, self.configuration, self.slice_axis = notice, configuration, slice_axis
        self.keys = {"prediction": pred_key, "label": label_key, "image": image_key}
        self._cases: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        # Not COMPLETED: by then the handlers that print and save metrics have already read them.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Forget the cases of an earlier run; the time counts from here.

        Raises:
            InputError: the scores would take the place of a file that is not ours, or was changed since.
        """
        refuse_foreign(self.output_dir / name for name in FILES)
        self._cases = []
        network, device = getattr(engine, "network", None), getattr(engine.state, "device", "cpu")
        self._record = RunRecord(network, device, configuration=self.configuration)

    def score(self, engine: Engine) -> None:
        """Score the cases of one batch."""
        inputs = engine.state.batch  # MONAI's evaluators keep the patient there, and not in the output
        inputs = inputs if isinstance(inputs, list) else [{}] * len(engine.state.output)
        items = ({**given, **made} for given, made in zip(inputs, engine.state.output, strict=True))
        self._cases.extend(self._score_item(item) for item in items)

    def finish(self, engine: Engine) -> None:
        """Summarise over all processes; write, log and publish."""
        cases = number_duplicates(gather_cases(self._cases))
        summary = summarise(cases, self.class_names)
        if self.notice:
            summary["notice"] = self.notice
        if refused := getattr(engine.state, "refused", []):  # by kvseg_monai.handlers.invalid_cases
            summary["refused"] = list(refused)
        summary["manifest"] = self._record.facts()
        if self.ensemble is not None:
            summary["manifest"]["ensemble"] = self.ensemble.facts()
        if _rank() == 0:
            write_metrics(summary, self.output_dir)
            logger.info("scores of %d case(s), written to %s\n%s", len(cases), self.output_dir, as_table(summary))
        for metric in CASE_METRICS:
            engine.state.metrics[f"val_mean_{metric}"] = _number(summary["mean"][metric])
        for name, scores in summary["classes"].items():
            engine.state.metrics[f"val_{name}_dice"] = _number(scores["dice"])

    def _score_item(self, item: Mapping[str, Any]) -> dict[str, Any]:
        missing = [key for key in self.keys.values() if key not in item]
        if missing:
            raise InputError(f"the item to score has no {missing}, only {sorted(item)}; keep {[*self.keys.values()]}")
        prediction, label = item[self.keys["prediction"]], item[self.keys["label"]]
        image_path, label_path = _path(item[self.keys["image"]]), _path(label)
        case = case_name(image_path or "case")
        try:
            volumes = [_without_channel(prediction, "prediction"), _without_channel(label, "label")]
            spacing = _spacing(label)
            _warn_of_other_grid(prediction, label, case)
            across = _slice_axis(label, self.slice_axis)
            scores = score_case(*volumes, class_names=self.class_names, spacing=spacing, slice_axis=across)
        except InputError as error:
            raise InputError(f"case {case}: {error}") from error
        return {
            "case": case,
            "patient": str(item.get("patient", case)),
            **scores,
            "image": image_path,
            "label": label_path,
            "prediction": _meta(prediction).get("saved_to"),  # set by SaveImaged(savepath_in_metadict=True)
        }


def case_name(path: str) -> str:
    """Name of a case: the file name of its image without ``.nii`` or ``.nii.gz``."""
    return without_suffix(os.path.basename(path.rstrip("/\\")))


def number_duplicates(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the second case of one name the suffix ``_2``, the third ``_3``, and so on; never a name already taken."""
    taken = {case["case"] for case in cases}
    seen: set[str] = set()
    result = []
    for case in cases:
        name, number = case["case"], 2
        if name in seen:
            while f"{case['case']}_{number}" in taken:
                number += 1
            name = f"{case['case']}_{number}"
        taken.add(name)
        seen.add(name)
        result.append({**case, "case": name})
    return result


def gather_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases of all processes, in rank order; an image that the sampler repeated counts once."""
    if not (dist.is_available() and dist.is_initialized()):
        return cases
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, cases)
    gathered: list[dict[str, Any]] = []
    for of_rank in ranks:
        known = {case["image"] for case in gathered if case["image"]}
        gathered.extend(case for case in of_rank if case["image"] not in known)
    return gathered


def as_table(summary: Mapping[str, Any]) -> str:
    """Return a plain-text table of the scores per class and over all, undefined ones as ``-``."""
    width = max(len("class"), *(len(name) for name in summary["classes"]))
    lines = [f"{'class':<{width}}" + "".join(f"{metric:>18}" for metric in (*CASE_METRICS, *COUNTS))]
    for name, scores in [*summary["classes"].items(), ("mean", summary["mean"])]:
        cells = [f"{scores[m]:.4f}" if scores.get(m) is not None else "-" for m in CASE_METRICS]
        cells += [str(scores.get(count, "-")) for count in COUNTS]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _without_channel(volume: Any, name: str) -> Any:
    """Drop the channel: (1, X, Y, Z) -> (X, Y, Z)."""
    if volume.ndim != 4 or volume.shape[0] != 1:
        raise InputError(
            f"the {name} has shape {tuple(volume.shape)}; (1, X, Y, Z) is needed: one channel of integer labels, after "
            "AsDiscreted(argmax=True) for a prediction and EnsureChannelFirstd for a label"
        )
    return volume[0]


def _spacing(label: Any) -> tuple[float, ...]:
    if not hasattr(label, "affine"):
        raise InputError("the label has no affine, so its voxel size in mm is unknown; load it with LoadImaged")
    return tuple(float(size) for size in affine_to_spacing(label.affine))


def _slice_axis(label: Any, slice_axis: str) -> int:
    """Return the array axis across which the network cuts its slices."""
    affine = label.affine.cpu().numpy()
    return array_axes(affine)[plane_of(label.shape[1:], affine, slice_axis)]


def _warn_of_other_grid(prediction: Any, label: Any, case: str) -> None:
    """Log a warning: a forgotten Invertd leaves the shape right and the score near zero, with no error."""
    if not hasattr(prediction, "affine"):
        return
    one, other = (torch.as_tensor(volume.affine).cpu().double() for volume in (prediction, label))
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-2):
        logger.warning("case %s: the affines of prediction and label differ; is Invertd missing?", case)


def _meta(volume: Any) -> Mapping[str, Any]:
    return getattr(volume, "meta", {})


def _path(volume: Any) -> str | None:
    path = _meta(volume).get("filename_or_obj")
    if isinstance(path, (list, tuple)):
        path = path[0] if path else None
    return None if path is None else os.fspath(path)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
