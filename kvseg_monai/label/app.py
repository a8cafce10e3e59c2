"""Additions to MONAI Label's app ``monaibundle``; imported by the ``main.py`` that :mod:`.install` writes.

- A mistake in the input reaches the client as its sentence, where MONAI Label would answer "Internal Server Error".
- Requests name images, never paths, and their options are checked; see :mod:`.requests`.
- Weights are loaded strictly, also where a training starts from them, where MONAI Label would go on with what fits.
- The next sample can be chosen by uncertainty: scoring reads probabilities, where the app would take label maps for
  them, and the strategy that uses the scores is there.
- The colours of the labels, from :mod:`kvseg_monai.utils.labels`, are sent with the labels, and are in DICOM SEG.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from monai.transforms import Activationsd, AsDiscreted, Invertd, LoadImage, SaveImaged, ToDeviced
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.tasks.train.bundle import BundleTrainTask
from torch import nn

from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers.checkpoints import StrictCheckpointLoader
from kvseg_monai.label.requests import (
    NotFoundError,
    cleaned,
    inference_readers,
    status_of,
    training_readers,
)
from kvseg_monai.label.segments import describe_segments
from kvseg_monai.label.studies import image_file, keep_images
from kvseg_monai.transforms import LabelMapOnFileGridd
from kvseg_monai.utils.cpu import tune_cpu
from kvseg_monai.utils.labels import colours_of
from kvseg_monai.utils.model_files import BEST
from kvseg_monai.utils.weights import load_weights
from kvseg_monai.utils.weights_file import read_weights

# Whether the image of a request is a file that came along with it, and no name. Only the server can set this.
SENT_FILE: ContextVar[bool] = ContextVar("SENT_FILE", default=False)
INFERENCE_INPUT = ("model", "image", "description", "session", "label")


@contextmanager
def as_http_answer() -> Iterator[None]:
    """Turn a mistake in the input into an HTTP answer with its sentence.

    Raises:
        HTTPException: with the sentence.
    """
    try:
        yield
    except Exception as error:
        mistake = find_input_error(error)
        if mistake is None:
            raise
        raise HTTPException(status_code=status_of(mistake), detail=str(mistake)) from error


class Inference(BundleInferTask):
    """A bundle's inference that refuses with a sentence what the input checks or the strict loading refuses."""

    def __init__(self, path: str, conf: dict[str, str], **options: Any) -> None:
        super().__init__(path, conf, load_strict=True, **options)
        tune_cpu(linear=self.bundle_config.get("linear", "auto"))
        self._checked: tuple[Path, int] | None = None

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Any:
        """Infer.

        Raises:
            HTTPException: with the sentence, where the input or the request is refused.
        """
        with as_http_answer():
            readers = inference_readers(self.config()["device"])
            own = {name: value for name, value in self.config().items() if name not in readers}
            asked = cleaned(request, readers, keep=(*INFERENCE_INPUT, *own))
            self._refuse_model(asked.get("model_filename", BEST))
            image = asked.get("image")
            if isinstance(image, str) and not os.path.isabs(image):
                raise NotFoundError(f"there is no image {image!r}")
            return super().__call__(asked, callbacks)

    def _refuse_model(self, name: str) -> None:
        folder = Path(self.path[0]).parent
        if name != BEST and not (folder / name).is_file():
            there = ", ".join(sorted(path.name for path in folder.glob("*.pt")))
            raise NotFoundError(f"there are no weights {name!r} for this model; there is {there}")

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
        kept_back = [SaveImaged, LabelMapOnFileGridd, Invertd, AsDiscreted]
        options = {"train_mode": True, "skip_writer": True, "add_post_restore": False}
        super().__init__(path, conf, dropout=dropout, post_filter=kept_back, **options)

    def post_transforms(self, data: dict[str, Any] | None = None) -> Any:
        """Return what makes probabilities of the network's scores."""
        transforms = super().post_transforms(data)
        if not any(isinstance(transform, Activationsd) for transform in transforms):
            transforms = [Activationsd(keys="pred", softmax=True), *transforms]
        return [*transforms, ToDeviced(keys="pred", device="cpu")]  # which are kept for each of many rounds

    def _get_network(self, device: str, data: dict[str, Any] | None) -> nn.Module:
        network = super()._get_network(device, data)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics are those of the training, not of the volume at hand
        return network


class Training(BundleTrainTask):
    """A bundle's training that starts from the weights that are asked for, or not at all."""

    def __call__(self, request: dict[str, Any], datastore: Any) -> Any:
        """Train.

        Raises:
            InputError: an option of the request has a value that is not allowed, or names what is not there.
        """
        readers = training_readers(self.config()["device"])
        asked = cleaned(request, readers, keep=("model",))
        run = asked.get("run_id", "run")
        if not isinstance(self.bundle_config.config.get(run), list):
            raise NotFoundError(
                f"there is no {run!r} to run in {self.bundle_config_path}; leave the option run_id empty"
            )
        try:
            return super().__call__({"model": "", **asked}, datastore)
        except Exception as error:  # the end of the task's log, which the client sees, is the sentence
            mistake = find_input_error(error)
            if mistake is None:
                raise
            raise mistake from None

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        target = f"{StrictCheckpointLoader.__module__}.{StrictCheckpointLoader.__name__}"
        train_handlers[:] = [handler for handler in train_handlers if handler.get("_target_") != target]
        path = Path(model_pytorch)
        if pretrained and (path.is_file() or path.name != BEST):
            load = {"_target_": target, "path": model_pytorch, "network": "@network", "device": "@device"}
            train_handlers.insert(0, load)


if TYPE_CHECKING:
    App = Any  # MONAI Label has no types, nor is it installed where types are checked
else:
    App = object


class Additions(App):
    """Mixin for an app; it goes before MONAI Label's ``MyApp`` of ``monaibundle`` among the bases."""

    def init_datastore(self) -> Any:
        """MONAI Label's, in which no image is replaced."""
        return keep_images(super().init_datastore())

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Infer on an image that the request names, or that came with it.

        MONAI Label would take a name for a path first, from the server's working directory on.

        Raises:
            HTTPException: with status 404 and the sentence, where there is no such image.
        """
        if SENT_FILE.get():
            return super().infer(request, datastore)
        store = datastore or self.datastore()
        name = request.get("image")
        with as_http_answer():
            path = image_file(store, name)
            asked = cleaned(request, inference_readers())
        answer = super().infer({**request, "image": path}, store)  # of a path it saves no label
        if asked.get("save_label") and answer["file"]:
            info = {"model": request["model"], "params": answer["params"]}
            tag = asked.get("label_tag", DefaultLabelTag.ORIGINAL)
            answer["label"] = store.save_label(name, answer["file"], tag, info)
        return answer

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Refuse: these models are for volumes.

        Raises:
            HTTPException: with the sentence.
        """
        with as_http_answer():
            raise InputError("these models segment MR volumes, not slides; ask for /infer/MODEL")

    def next_sample(self, request: dict[str, Any]) -> Any:
        """MONAI Label's; a strategy that is empty, or no text, is its default.

        Raises:
            HTTPException: there is no such strategy.
        """
        strategy = request.get("strategy")
        strategy = strategy if isinstance(strategy, str) and strategy else "random"
        with as_http_answer():
            if strategy not in self._strategies:
                raise NotFoundError(f"there is no strategy {strategy!r}; there is {', '.join(self._strategies)}")
        return super().next_sample({**request, "strategy": strategy})

    def init_remote_datastore(self) -> Any:
        """Return MONAI Label's datastore, whose DICOM SEG have the names, codes and colours of the labels."""
        store = super().init_remote_datastore()
        save = store.save_label

        def save_label(image_id: str, file: str, tag: str, info: dict[str, Any], label_id: str = "") -> str:
            if not file.endswith(".bin"):  # scribbles, which are no label map
                present = np.unique(LoadImage(image_only=True)(file)).astype(int)
                sent = info.get("label_info")
                sent = [each if isinstance(each, dict) else {} for each in sent] if isinstance(sent, list) else ()
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

    def init_trainers(self) -> dict[str, Any]:
        """One training a bundle."""
        return {name: Training(path, self.conf) for name, path in self.models.items()}

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
