"""Configuration of an arm, recorded in its folder, so that results of another configuration are never mixed in."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.study import results
from kvseg_monai.study.dataset import data_record
from kvseg_monai.study.plan import Arm, Study
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.old_names import current_options
from kvseg_monai.utils.settings import default_of


def arms_dir(study: Study) -> Path:
    """Return the folder of the arms' folders."""
    return study.output_dir / "arms"


def configuration(study: Study, arm: Arm) -> dict[str, Any]:
    """Return all that an arm's result depends on, as JSON; where the files lie is not among it.

    It needs the study's ``datalist.json``.
    """
    data = data_record(study.output_dir)
    files = {name: study.bundles_dir / arm.bundle / "configs" / f"{name}.json" for name in ("train", "evaluate")}
    overrides = {**arm.overrides, "network_def#out_channels": len(data["labels"])}
    found = {
        "net": arm.net,
        "attention": arm.attention,
        "seed": arm.seed,
        "reference": study.reference,
        "bundle": {name: _hash_without_attention(file) for name, file in files.items()},
        "max_epochs": overrides.get("max_epochs")
        or default_of(json.loads(files["train"].read_text(encoding="utf-8"))["max_epochs"]),
        "overrides": overrides,
        "split": study.split,
        "data": data,
    }
    return json.loads(json.dumps(found))


def _hash_without_attention(file: Path) -> str:
    """Hash a configuration but for its attention, which is overridden: bundles of one net are then alike."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["network_def"].pop("attention", None)
    return sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def write_configuration(study: Study, arm: Arm) -> None:
    """Record the configuration in the arm's folder, before anything else is there."""
    text = json.dumps(configuration(study, arm), indent=1) + "\n"
    write_text(arms_dir(study) / arm.name / results.CONFIGURATION, text)


def refuse_other_configurations(study: Study, *, redo: bool = False) -> None:
    """Compare every arm that was begun with what the study says now.

    Raises:
        InputError: naming an arm and what differs; with ``redo`` such arms are set aside instead. Also for a folder in
            the place of an arm's that is none.
    """
    for arm in study.arms:
        folder = arms_dir(study) / arm.name
        found = begun(folder)
        wanted = configuration(study, arm)
        if found is not None:
            found["overrides"] = current_options(found.get("overrides", {}), wanted["overrides"])
        if found in (None, wanted):
            continue
        if redo:
            folder.rename(_free_name(study.output_dir / "replaced", arm.name))
            continue
        changed = ", ".join(_differences(wanted, found))
        by_version = " (a bundle changes with the version of kvseg_monai, and study report reads the arms as they are)"
        raise InputError(
            f"{folder} was made with another configuration: {changed}; undo the change"
            f"{by_version if wanted['bundle'] != found.get('bundle') else ''}, or give --redo to make such "
            "arms again (the old ones go to 'replaced'), or another --output_dir"
        )


def begun(folder: Path) -> dict[str, Any] | None:
    """Return the configuration with which an arm was begun, None where its folder is new.

    Raises:
        InputError: the folder holds what no arm has, and so is not ours to write into.
    """
    try:
        found = json.loads((folder / results.CONFIGURATION).read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"net", "attention", "seed"} <= set(found):
            return found
    except (OSError, ValueError):  # what is there instead is checked below
        pass
    # A process that was stopped, or has just begun, leaves an empty lock and hidden files.
    if os.path.lexists(folder) and not (folder.is_dir() and all(map(_is_beginning, folder.iterdir()))):
        raise InputError(
            f"{folder} is there and is no arm of a study; move it away, or give another --output_dir: nothing is "
            "written into it"
        )
    return None


def _is_beginning(path: Path) -> bool:
    return path.name.startswith(".") or (path.name == results.LOCK and path.is_file() and not path.stat().st_size)


def refuse_unmatched(study: Study) -> None:
    """Compare the finished arms with one another: all but attention and seed must be the same, in one net.

    Raises:
        InputError: naming two arms and what differs.
    """
    names = results.finished(arms_dir(study), [arm.name for arm in study.arms])
    found = {n: json.loads((arms_dir(study) / n / results.CONFIGURATION).read_text(encoding="utf-8")) for n in names}
    first: dict[str, str] = {}
    for name, configuration in found.items():
        base = first.setdefault(configuration["net"], name)
        changed = ", ".join(_differences(_shared(configuration), _shared(found[base])))
        if changed:
            raise InputError(f"the arms {name} and {base} do not match: {changed}; make one again with run --redo")


def _shared(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the arms of a net have in common."""
    shared = {key: value for key, value in configuration.items() if key not in ("attention", "seed")}
    return {**shared, "overrides": {**shared["overrides"], "network_def#attention": None}}


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*wanted, *found]):
        now, before = wanted.get(key), found.get(key)
        if isinstance(now, Mapping) and isinstance(before, Mapping):
            yield from _differences(now, before, f"{prefix}{key} ")
        elif now != before:
            yield f"{prefix}{key} is {_short(now)} and was {_short(before)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _free_name(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    dated = f"{name}_{time.strftime('%Y%m%d-%H%M%S')}"
    names = (parent / f"{dated}{again}" for again in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(path for path in names if not os.path.lexists(path))
