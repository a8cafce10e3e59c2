"""The file ``plan.json``: settings of a data set, each with its value and the reason for it."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvseg_monai._version import __version__
from kvseg_monai.data.datalist import DATALIST
from kvseg_monai.errors import InputError
from kvseg_monai.transforms.intensity import NORMALIZATIONS
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.geometry import SLICE_AXES, SPACING_MM

PLAN = "plan.json"
STRIDE = 16  # of every network of ours, in pixels
SIDES = (STRIDE, 2048)  # of a canvas

Value = TypeVar("Value")
Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[1], multiple_of=STRIDE, strict=True)]
Millimetres = Annotated[float, Field(ge=SPACING_MM[0], le=SPACING_MM[1])]
Count = Annotated[int, Field(ge=1, le=10**7, strict=True)]
Class = Annotated[int, Field(ge=1, strict=True)]


class Strict(BaseModel):
    """A table of which every name is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Chosen(Strict, Generic[Value]):
    """A value, and the sentence that says why."""

    value: Value
    reason: str = ""


class Settings(Strict):
    """The settings that a plan may hold, by the names that the bundles' options have; one that is left out is not set.

    ``patch_size`` is of SETR alone, and ``keep_largest`` names the label values whose every label map is in one piece.
    """

    image_size: Chosen[tuple[Side, Side]] | None = None
    spacing: Chosen[tuple[Millimetres, Millimetres]] | None = None
    slice_axis: Chosen[Literal[SLICE_AXES]] | None = None  # type: ignore[valid-type]  # a tuple of texts
    normalization: Chosen[Literal[NORMALIZATIONS]] | None = None  # type: ignore[valid-type]
    out_channels: Chosen[Annotated[int, Field(ge=2, strict=True)]] | None = None
    patch_size: Chosen[Literal[8, 16]] | None = None
    volumes_per_batch: Chosen[Count] | None = None
    slices_per_volume: Chosen[Count] | None = None
    max_epochs: Chosen[Count] | None = None
    steps_per_epoch: Chosen[Count] | None = None
    keep_largest: Chosen[list[Class]] | None = None


class Plan(Strict):
    """The content of ``plan.json``: the version that wrote it, a hash of the datalist, how many cases, the settings."""

    kvseg_monai: str
    datalist: str = ""
    cases: Annotated[int, Field(ge=0)] = 0
    settings: Settings

    def values(self) -> dict[str, Any]:
        """Return name -> value of the settings that are set."""
        return {name: chosen["value"] for name, chosen in self.chosen().items()}

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return name -> value and reason of the settings that are set, as JSON."""
        return self.settings.model_dump(mode="json", exclude_none=True)


def read_plan(path: str | Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: it is missing, damaged, no plan, or holds a setting that is unknown or not possible.
    """
    path = Path(path)
    again = "correct it, or make it again: python -m kvseg_monai.plan DATA"
    if not path.is_file():
        raise InputError(f"{path} is missing; name a plan that is there, or leave --plan out")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); {again}") from error
    if not isinstance(found, dict) or "settings" not in found or "kvseg_monai" not in found:
        raise InputError(f"{path} is no plan of kvseg_monai, which names its version and its settings; {again}")
    try:
        return Plan.model_validate(found)
    except ValidationError as error:
        mistake = error.errors()[0]
        place = [str(part) for part in mistake["loc"] if "[" not in str(part)]
        raise InputError(
            f"{path}: {', '.join(place)} is {_short(mistake['input'])}; {mistake['msg'][:1].lower()}"
            f"{mistake['msg'][1:]}; {again}"
        ) from None


def write_plan(path: str | Path, settings: dict[str, tuple[Any, str]], *, datalist: str, cases: int) -> Plan:
    """Write a plan, whole or not at all, and return it.

    Args:
        path: the file.
        settings: name -> value and reason.
        datalist: what :func:`hash_datalist` returns.
        cases: how many were measured.

    Raises:
        InputError: somebody else's file is there.
    """
    chosen = {name: {"value": value, "reason": reason} for name, (value, reason) in settings.items()}
    plan = Plan.model_validate(
        {"kvseg_monai": __version__, "datalist": datalist, "cases": cases, "settings": json.loads(json.dumps(chosen))}
    )
    content = {**plan.model_dump(mode="json", exclude={"settings"}), "settings": plan.chosen()}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return plan


def hash_datalist(dataset_dir: str | Path) -> str:
    """Return what distinguishes one set of cases from another: a hash of the datalist's lists; "" without one."""
    path = Path(dataset_dir) / DATALIST
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
