"""Settings that a configuration takes from elsewhere: those that weights were trained with, and those of a plan.

Each such option of a bundle names its default in its own place, as :func:`setting`, so that an override, which takes
that place, wins. Weights carry their settings in the header of the safetensors beside them, and ``training.json`` says
the same.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.utils.model_files import record_of
from kvseg_monai.utils.old_names import BEFORE
from kvseg_monai.utils.records import digest_of
from kvseg_monai.utils.safetensors_file import SUFFIX, beside, read_metadata

SETTING = "kvseg_monai.utils.setting"
NETWORK = "network_def"
# What weights carry, of a run's settings; the arguments of the network are below NETWORK.
CARRIED = ("image_size", "spacing", "slice_axis", "normalization", "slice_offsets", "flip", "keep_largest", NETWORK)
CANDIDATE_RECORD, LAST_SUFFIX = "training_candidate.json", ".ckpt"


def setting(name: str, source: Mapping[str, Any], default: Any = None) -> Any:
    """Return a setting of a plan or of weights: a ``_target_`` in the place of an option's value.

    Args:
        name: of the setting.
        source: name -> value, what is set there.
        default: the value where it is not set.
    """
    return source.get(name, default)


def default_of(value: Any) -> Any:
    """Return an option's default by what stands in its place in a configuration."""
    return value.get("default") if is_setting(value) else value


def is_setting(value: Any) -> bool:
    """Return whether a value in a configuration is a :func:`setting`."""
    return isinstance(value, Mapping) and value.get("_target_") == SETTING


def files_of_weights(ckpt_path: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files of weights that ``ckpt_path`` names: one, or a list of them.

    Raises:
        InputError: the list is empty, or names a file twice.
    """
    given = [ckpt_path] if isinstance(ckpt_path, str | Path) else list(ckpt_path)
    paths = [Path(path) for path in given]
    if not paths:
        raise InputError("--ckpt_path is an empty list; give a file of weights, or several: \"['a.pt','b.pt']\"")
    if twice := [path for number, path in enumerate(paths) if path in paths[:number]]:
        raise InputError(f"--ckpt_path names {twice[0]} twice; name each file of weights once")
    return paths


def trained_settings(ckpt_path: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Return what is recorded of weights of how they were trained, the network's arguments among the others.

    Args:
        ckpt_path: the weights; of several, the first.

    Returns:
        name -> value; nothing where there are no weights, and of weights without a record what earlier versions did.

    Raises:
        InputError: as :func:`files_of_weights` does.
    """
    weights = files_of_weights(ckpt_path)[0]
    if not weights.is_file():
        return {}
    found = carried(read_settings(weights))
    return {**BEFORE, **{name: value for name, value in found.items() if name != NETWORK}, **found.get(NETWORK, {})}


def carried(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a run's settings that weights carry, without what is an expression still."""
    found = {name: settings[name] for name in CARRIED if name in settings and not _is_expression(settings[name])}
    arguments = found.pop(NETWORK, None)
    if isinstance(arguments, Mapping):
        found[NETWORK] = {
            name: value for name, value in arguments.items() if name[:1] != "_" and not _is_expression(value)
        }
    return found


def read_settings(weights: str | Path) -> dict[str, Any]:
    """Return the settings of the training that made weights, {} where nothing says them.

    The header of safetensors belongs to its tensors, or by a hash to the ``.pt`` file beside it, so it has the first
    word; where that hash is another's, ``training.json`` is of other weights too, and is not read.
    """
    weights = Path(weights)
    header = weights if weights.suffix == SUFFIX else beside(weights)
    metadata = read_metadata(header) if header.is_file() and weights.suffix in (SUFFIX, ".pt") else {}
    if metadata and header != weights and metadata.get("beside") != digest_of(weights):
        return {}
    for text in (metadata.get("settings"), _record_beside(weights)):
        try:
            found = json.loads(text or "null")
        except ValueError:
            continue
        if isinstance(found, dict) and found:
            return found
    return {}


def _record_beside(weights: Path) -> str | None:
    """Return the settings in the record beside weights, as JSON."""
    names = [record_of(weights.with_suffix(".pt"))]
    if weights.suffix == LAST_SUFFIX:  # of the run that is in progress, or of the last one
        names = [weights.with_name(CANDIDATE_RECORD), record_of(weights.with_name("model.pt"))]
    file = next((path for path in names if path.is_file()), None)
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return None
    return json.dumps(found.get("settings")) if isinstance(found, dict) else None


def _is_expression(value: Any) -> bool:
    return (isinstance(value, str) and value[:1] in ("$", "@", "%")) or is_setting(value)
