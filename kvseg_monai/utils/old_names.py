"""Names that version 0.1.0 gave, and the names that took their place: one table, by which old files are still read.

A bundle that was packed at 0.1.0 names classes and functions in its configurations by where they were then. MONAI
finds a ``_target_`` and what an expression names attribute by attribute, ``kvseg_monai`` first, whose ``__getattr__``
asks :func:`old_module` for what it does not have. Nothing is imported, nor any module made, until an old name is used.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import isfunction, signature
from types import ModuleType
from typing import Any

METRICS = {  # counts of scans per class in metrics.json
    "missed": "false_negatives",
    "invented": "false_positives",
}

CHECKPOINT = {"rival": "earlier_score"}  # in last.ckpt

METHODS = {"tell": "report"}  # of SkipBadCases, which the configurations of packed bundles call

OPTIONS = {"query_bias_rate": "query_bias_lr_scale"}  # of training, in configurations, studies and arms

BEFORE = {"normalization": "percentiles", "slice_axis": "axial"}  # what was done before there was the option

RETIRED = {"amp": "precision"}  # options that went, and what there is in their place

MODULES = {  # where what configurations name was, and is now
    "kvseg_monai.bad_cases": "kvseg_monai.handlers",
    "kvseg_monai.checkpoints": "kvseg_monai.handlers",
    "kvseg_monai.convert": "kvseg_monai.conversion",
    "kvseg_monai.dicom_output": "kvseg_monai.transforms",
    "kvseg_monai.guard": "kvseg_monai.transforms",
    "kvseg_monai.label_maps": "kvseg_monai.data",
    "kvseg_monai.nifti_reader": "kvseg_monai.data",
    "kvseg_monai.overrides": "kvseg_monai.utils",
    "kvseg_monai.readers": "kvseg_monai.data",
    "kvseg_monai.scoring": "kvseg_monai.handlers",
    "kvseg_monai.training": "kvseg_monai.handlers",
}

NAMES = {  # what also has another name, or went elsewhere than the rest of its module
    "kvseg_monai.bad_cases.sound_cases": "kvseg_monai.handlers.valid_cases",
    "kvseg_monai.checkpoints.LoadWeights": "kvseg_monai.handlers.StrictCheckpointLoader",
    "kvseg_monai.checkpoints.load_weights": "kvseg_monai.utils.load_weights",
    "kvseg_monai.label_maps.still_to_do": "kvseg_monai.data.pending",
    "kvseg_monai.training.parameter_groups": "kvseg_monai.blocks.parameter_groups",
}


def old_module(name: str) -> ModuleType:
    """Return what stands for a module of 0.1.0: it finds each public name of that module where it is now.

    Raises:
        AttributeError: there was no such module, or nothing took its place.
    """
    if name not in MODULES:
        package, _, last = name.rpartition(".")
        raise AttributeError(f"module {package!r} has no attribute {last!r}")
    module = ModuleType(name, f"Where version 0.1.0 had what {MODULES[name]} has now.")
    module.__getattr__ = functools.partial(_current, name)  # type: ignore[method-assign]  # PEP 562
    return module


def _current(module: str, name: str) -> Any:
    """Return what an attribute of an old module is now, and say its new name."""
    if name.startswith("_"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    old = f"{module}.{name}"
    new = NAMES.get(old, f"{MODULES[module]}.{name}")
    room, _, last = new.rpartition(".")
    found = getattr(import_module(room), last)
    warnings.warn(f"{old} is {new} now; docs/compatibility.md says how to renew a bundle", FutureWarning, stacklevel=2)
    renamed = isfunction(found) and set(OPTIONS.values()) & set(signature(found).parameters)
    return _with_old_options(found) if renamed else found


def _with_old_options(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{OPTIONS.get(name, name): value for name, value in options.items()})

    return call


def current_options(overrides: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Give options that were renamed since 0.1.0 the names that a configuration knows, and say so.

    Args:
        overrides: name -> value.
        known: the configuration's names; a bundle of 0.1.0 keeps the old ones.
    """
    known, renamed = set(known), {}
    for name, value in overrides.items():
        new = name if name in known else OPTIONS.get(name, name)
        if new != name:
            warnings.warn(f"the option {name} is {new} now", FutureWarning, stacklevel=2)
        renamed[new] = value
    return renamed
