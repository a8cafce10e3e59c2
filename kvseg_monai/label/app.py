"""Additions to MONAI Label's app ``monaibundle``; imported by the ``main.py`` that :mod:`.install` writes.

- A mistake in the input reaches the client as its sentence, where MONAI Label would answer "Internal Server Error".
- Weights are loaded strictly, where MONAI Label would go on with what fits.
- The next sample can be chosen by uncertainty: scoring reads probabilities, where the app would take label maps for
  them, and the strategy that uses the scores is there.
- The colours of the labels, from :mod:`kvseg_monai.utils.labels`, are sent with the labels, and are in DICOM SEG.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monai.transforms import AsDiscreted, Invertd, LoadImage, SaveImaged
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from torch import nn

from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.label.segments import describe_segments
from kvseg_monai.utils.labels import colours_of
from kvseg_monai.utils.weights import load_weights
from kvseg_monai.utils.weights_file import read_weights

REFUSED = 400  # HTTP: the client's mistake


class Inference(BundleInferTask):
    """A bundle's inference that refuses with a sentence what the input checks or the strict loading refuses."""

    def __init__(self, path: str, conf: dict[str, str], **options: Any) -> None:
        super().__init__(path, conf, load_strict=True, **options)
        self._checked: tuple[Path, int] | None = None

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Any:
        """Infer.

        Raises:
            HTTPException: with the sentence, where the input is refused.
        """
        try:
            return super().__call__(request, callbacks)
        except Exception as error:
            mistake = find_input_error(error)
            if mistake is None:
                raise
            raise HTTPException(status_code=REFUSED, detail=str(mistake)) from error

    def _get_network(self, device: str, data: dict[str, Any] | None) -> nn.Module:
        chosen = (data or {}).get("model_filename") or "model.pt"
        weights = Path(self.path[0]).parent / (chosen if isinstance(chosen, str) else chosen[0])
        if weights.is_file() and self._checked != (stamp := (weights, weights.stat().st_mtime_ns)):
            read_weights(weights)  # MONAI Label, which loads them, would take damaged ones
            self._checked = stamp
        try:
            return super()._get_network(device, data)
        except Exception as error:
            try:
                load_weights(copy.deepcopy(self.network), weights)
            except InputError as mistake:
                raise mistake from error
            raise


class DropoutInference(Inference):
    """Inference whose result, probabilities on the network's own grid, differs from time to time by dropout alone."""

    def __init__(self, path: str, conf: dict[str, str], dropout: float) -> None:
        kept_back = [SaveImaged, Invertd, AsDiscreted]
        options = {"train_mode": True, "skip_writer": True, "add_post_restore": False}
        super().__init__(path, conf, dropout=dropout, post_filter=kept_back, **options)

    def _get_network(self, device: str, data: dict[str, Any] | None) -> nn.Module:
        network = super()._get_network(device, data)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics are those of the training, not of the volume at hand
        return network


class Additions:
    """Mixin for an app; it goes before MONAI Label's ``MyApp`` of ``monaibundle`` among the bases."""

    def init_remote_datastore(self) -> Any:
        """Return MONAI Label's datastore, whose DICOM SEG have the names, codes and colours of the labels."""
        store = super().init_remote_datastore()
        save = store.save_label

        def save_label(image_id: str, file: str, tag: str, info: dict[str, Any], label_id: str = "") -> str:
            if not file.endswith(".bin"):  # scribbles, which are no label map
                present = np.unique(LoadImage(image_only=True)(file)).astype(int)
                sent = info.get("label_info") or ()
                info = {**info, "label_info": describe_segments(present[present > 0].tolist(), self._labels(), sent)}
            return save(image_id, file, tag, info, label_id)

        store.save_label = save_label
        return store

    def _labels(self) -> dict[str, int]:
        """Name -> value, of all bundles; of two that differ, the first's."""
        merged: dict[str, int] = {}
        for inference in self._infers.values():
            merged = {**inference.labels, **merged}
        return merged

    def init_infers(self) -> dict[str, Any]:
        """Return one inference per bundle."""
        return {name: Inference(path, self.conf) for name, path in self.models.items()}

    def init_strategies(self) -> dict[str, Any]:
        """Return the app's strategies, and ``epistemic``: the volume that scored as most uncertain."""
        return {**super().init_strategies(), "epistemic": Epistemic()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """Return uncertainty by dropout, for the bundles that ``--conf epistemic_model`` names."""
        return {
            name: EpistemicScoring(
                DropoutInference(path, self.conf, dropout=self.epistemic_dropout),
                max_samples=self.epistemic_max_samples,
                simulation_size=self.epistemic_simulation_size,
            )
            for name, path in (self.epistemic_models or {}).items()
        }

    def info(self) -> dict[str, Any]:
        """Return MONAI Label's info with ``label_colors`` of each model: name of a label -> [R, G, B]."""
        info = super().info()
        for model in info["models"].values():
            model["label_colors"] = colours_of(model["labels"])
        return info
