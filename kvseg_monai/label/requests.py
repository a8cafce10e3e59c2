"""Requests to the server, checked: names of images, labels and sessions, and options.

A name never is a path. Of the options of a request those that are known are taken, after a check; one that is empty
counts as not given, since 3D Slicer sends a whole table with each request, and unknown ones are left out.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from kvseg_monai.errors import InputError
from kvseg_monai.utils.flags import as_flag

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha")
TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")  # of voxels, that ITK writes
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
Reader = Callable[[Any, str], Any]


class NotFoundError(InputError):
    """A request names something that is not there; over HTTP status 404, any other :class:`InputError` 400."""


def status_of(mistake: InputError) -> int:
    """Return the HTTP status of a mistake in a request."""
    return 404 if isinstance(mistake, NotFoundError) else 400


def refuse_name(value: Any, what: str) -> str:
    """Return a name; anything that could be, or could lead to, a path of the server is refused.

    Raises:
        NotFoundError: for what is empty, no text, ``.`` or ``..``, or holds a separator or a control character.
    """
    plain = (
        isinstance(value, str) and value not in ("", ".", "..") and value.isprintable() and not set(value) & set("/\\")
    )
    if not plain:
        raise NotFoundError(f"there is no {what} {value!r}; give its name, which is never empty and never a path")
    return value


def parse_options(text: str | None) -> dict[str, Any]:
    """Return the options that a form sends as JSON; nothing at all counts as none.

    Raises:
        InputError: for other JSON than an object, or none.
    """
    try:
        sent = json.loads(text) if text and text.strip() else {}
    except (ValueError, RecursionError):
        raise InputError("the params of the request are no JSON; send an object, such as {}") from None
    if sent is None or sent == []:
        return {}
    if not isinstance(sent, dict):
        raise InputError("the params of the request are no JSON object; send name and value pairs, or {}")
    return sent


def cleaned(request: Mapping[str, Any], readers: Mapping[str, Reader], *, keep: Iterable[str] = ()) -> dict[str, Any]:
    """Return what is known of a request, checked: an option that is empty or unknown is left out.

    Args:
        request: as the client sent it. Of a list its first value counts, as MONAI Label takes its own lists of choices.
        readers: option -> what checks its value.
        keep: further entries to pass on as they are.

    Raises:
        InputError: an option has a value that is not allowed; it says which are.
    """
    kept = {name: request[name] for name in keep if name in request}
    for name, read in readers.items():
        value = request.get(name)
        if read is names and isinstance(value, list):
            value = [each for each in value if each]
        while read is not names and isinstance(value, list) and value:
            value = value[0]
        if value in (None, "", [], {}) or (isinstance(value, str) and not value.strip()):
            continue
        kept[name] = read(value, name)
    return kept


def flag(value: Any, name: str) -> bool:
    """Read true or false, also as text or number."""
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    try:
        return as_flag(value, name)
    except InputError:
        raise _wrong(value, name, "true or false") from None


def number(value: Any, name: str, *, low: float, below: float = float("inf"), also: float | None = None) -> float:
    """Read a number from ``low`` to ``below``, which is excluded, or ``also``; numbers as text count."""
    try:
        read = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        read = None
    if read is None or not (low <= read < below or read == also):
        span = f"a number from {low:g}" if below == float("inf") else f"a number from {low:g} to below {below:g}"
        raise _wrong(value, name, span if also is None else f"{span}, or {also:g}")
    return read


def whole(value: Any, name: str, *, low: int = 0) -> int:
    """Read a whole number of at least ``low``."""
    read = number(value, name, low=low)
    if read != int(min(read, 1e9)):
        raise _wrong(value, name, f"a whole number from {low}")
    return int(read)


def text(value: Any, name: str) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise _wrong(value, name, "a text")
    return value


def choice(value: Any, name: str, *, allowed: Iterable[str], case: Callable[[str], str] | None = None) -> str:
    """Read one of some values; ``case`` is how they are written where it does not matter."""
    allowed = list(dict.fromkeys(allowed))
    read = value if isinstance(value, str) else None
    read = case(read) if case and read else read
    if read not in allowed:
        raise _wrong(value, name, ", ".join(allowed))
    return read


def names(value: Any, name: str) -> Any:
    """Read what a batch is to do: all, labeled, unlabeled, or a list of names."""
    if isinstance(value, list):
        return [refuse_name(each, "image") for each in value]
    return choice(value, name, allowed=("all", "labeled", "unlabeled"))


def gpus(value: Any, name: str) -> str:
    """Read ``all``, or the numbers of GPUs with commas between them."""
    if not re.fullmatch(r"all|\d+(,\d+)*", str(value).replace(" ", "")):
        raise _wrong(value, name, "all, or numbers such as 0,1")
    return str(value).replace(" ", "")


def address(value: Any, name: str) -> str:
    """Read the address of a server; a path of this machine is none."""
    if not re.match(r"https?://", str(value)):
        raise _wrong(value, name, "an address that begins with http:// or https://")
    return str(value)


def device(value: Any, name: str, *, listed: Iterable[str] = ()) -> str:
    """Read a device: one that the server lists, ``cpu``, ``cuda``, or ``cuda:0`` and so on."""
    count = torch.cuda.device_count()
    if not count and re.fullmatch(r"cuda(:\d+)?", str(value)):
        return "cpu"
    return choice(
        value, name, allowed=[*listed, "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    )


def inference_readers(listed: Iterable[str] = ()) -> dict[str, Reader]:
    """Return the options of a request for a label map; ``listed`` are the devices that the server offers."""
    return {
        "device": partial(device, listed=listed),
        "model_filename": refuse_name,
        "result_extension": partial(choice, allowed=EXTENSIONS, case=str.lower),
        "result_dtype": partial(choice, allowed=TYPES),
        "result_compress": flag,
        "save_label": flag,
        "label_tag": refuse_name,
        "logging": partial(choice, allowed=LEVELS, case=str.upper),
    }


def training_readers(listed: Iterable[str] = ()) -> dict[str, Reader]:
    """Return the options of a request for a training."""
    return {
        "device": partial(device, listed=listed),
        "model_filename": refuse_name,
        "pretrained": flag,
        "max_epochs": partial(whole, low=1),
        "val_split": partial(number, low=0, below=1, also=-1),
        "multi_gpu": flag,
        "gpus": gpus,
        "tracking": partial(choice, allowed=("mlflow", "none"), case=str.lower),
        "tracking_uri": address,
        "tracking_experiment_name": text,
        "tracking_run_name": text,
        "run_id": text,
        "local_rank": whole,
    }


def background_readers(method: str, listed: Iterable[str] = ()) -> dict[str, Reader]:
    """Return the options of what the server does in the background: train, batch_infer or scoring."""
    if method == "train":
        return training_readers(listed)
    shared: dict[str, Reader] = {
        "device": partial(device, listed=listed),
        "multi_gpu": flag,
        "gpus": gpus,
        "max_workers": whole,
    }
    if method == "batch_infer":
        return {**inference_readers(listed), **shared, "images": names, "max_batch_size": whole}
    return {**shared, "max_samples": whole, "simulation_size": partial(whole, low=1)}


def _wrong(value: Any, name: str, allowed: str) -> InputError:
    shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    return InputError(f"the option {name} of the request is {shown}; it must be {allowed}, or empty for the default")
