"""What a training run needs beside MONAI's trainer: parameter groups and a progress bar with an estimate."""

import sys
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor, nn
from tqdm.auto import tqdm


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters for AdamW: matrices and kernels decay; biases, norms and positional weights do not."""
    decayed, free = [], []
    for name, weight in network.named_parameters():
        (decayed if weight.ndim > 1 and "position" not in name else free).append(weight)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class ProgressBar:
    """Handler that shows how far a run is, how long it will take, the loss, and the validation score.

    Args:
        evaluator: engine whose key metric is shown; None shows none.
        unit: what one iteration is, for the display.
    """

    def __init__(self, evaluator: Engine | None = None, unit: str = "step") -> None:
        self.evaluator, self.unit = evaluator, unit
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Open on ``STARTED``, move on ``ITERATION_COMPLETED``, close at the end or on an exception."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _open(self, engine: Engine) -> None:
        total = engine.state.epoch_length * engine.state.max_epochs
        # A log file gets a line every half minute, a terminal a moving bar.
        interval = 0.2 if sys.stderr.isatty() else 30
        self.bar = tqdm(total=total, initial=engine.state.iteration, unit=self.unit, mininterval=interval)

    def _move(self, engine: Engine) -> None:
        if self.bar is None:
            return
        shown = {}
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            shown["loss"] = f"{output['loss'].item():.3f}"
        if self.evaluator is not None and self.evaluator.state.metrics:
            name = self.evaluator.state.key_metric_name
            shown[name] = f"{float(self.evaluator.state.metrics[name]):.3f}"
        self.bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close(engine)
        raise error


def _richest_slice(item: dict[str, Any], key: str) -> Tensor:
    """Return (1, C, Y, X): the slice of ``item[key]`` (C, X, Y, Z) that shows the most labels, upright."""
    foreground = item["label"][1:].flatten(0, 2).sum(0)  # one-hot label (classes, X, Y, Z) -> (Z,)
    return item[key][..., int(foreground.argmax())].transpose(1, 2)[None].float()


def _class_shades(one_hot: Tensor) -> Tensor:
    """Turn one-hot (1, classes, Y, X) into one gray channel, a shade per class."""
    return one_hot.argmax(dim=1, keepdim=True) / (one_hot.shape[1] - 1)


def shown_image_and_label(batch: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Pick the image and label that TensorBoard shows from a validated batch."""
    return _richest_slice(batch[0], "image")[:, :1], _class_shades(_richest_slice(batch[0], "label"))


def shown_prediction(output: list[dict[str, Any]]) -> Tensor:
    """Pick the prediction that TensorBoard shows beside it."""
    return _class_shades(_richest_slice(output[0], "pred"))
