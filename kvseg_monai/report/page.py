"""Parts of every page of a report: templates, formats of numbers and times, and tables that describe a run."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import refuse_foreign, write_text
from kvseg_monai.utils.provenance import versions

Rows = dict[str, str]


def write_page(target: str | os.PathLike[str], template: str, content: Mapping[str, Any]) -> Path:
    """Render a template of ``kvseg_monai/templates`` to a file; return its path."""
    environment = Environment(
        loader=PackageLoader("kvseg_monai"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value, digits=3: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["plain"] = lambda name: str(name).replace("_", " ")
    environment.filters["times"] = lambda sides: "\u00a0x\u00a0".join(map(str, sides))
    environment.filters["suffix"] = lambda text, more: f"{text}{more}"
    return write_text(target, environment.get_template(template).render(content))


def refuse_page(target: str | os.PathLike[str], option: str = "target") -> None:
    """Refuse a place where no page can go, before the work.

    Raises:
        InputError: its name is not that of a page, or what is there is not a page of ours.
    """
    if Path(target).suffix.lower() not in (".html", ".htm") and not Path(target).is_dir():
        raise InputError(f"--{option} {target} is not named as a page; give a name that ends in .html")
    refuse_foreign([target])


def duration(seconds: float) -> str:
    """Write a time as seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(seconds: float) -> str:
    """Write a point in time, given in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"


def describe_run(facts: Mapping[str, Any]) -> Rows:
    """Return the facts of :class:`kvseg_monai.utils.run_record.RunRecord` as rows of a table, those that there are."""
    settings = facts.get("settings", {})
    rows = {
        "Bundle": facts.get("bundle"),
        "Configuration": _join(facts, "configuration", "{0}, sha256 {1}…"),
        "Overrides": _join(facts, "overrides", "{0} = {1}") or ("none" if "overrides" in facts else None),
        "Network": "network" in facts and f"{facts['network']}, {facts['parameters']:,} parameters",
        "Weights": _ensemble(facts.get("ensemble", {})),
        "Scans": _scans(settings),
        "Image size": "image_size" in settings and f"{_times(settings['image_size'])} pixels",
        "Pixel size": "spacing" in settings and f"{_times(settings['spacing'])} mm",
        "Slices": "slice_axis" in settings and _plane(settings["slice_axis"]),
        "Seed": "seed" in settings and str(settings["seed"]),
        "Epochs": "epochs" in facts and str(facts["epochs"]),
        "Device": facts.get("device"),
        "Started": facts.get("started"),
        "Took": "seconds" in facts and duration(facts["seconds"]),
        "Versions": "versions" in facts and describe_versions(facts["versions"]),
    }
    return {name: value for name, value in rows.items() if value}


def describe_versions(found: Mapping[str, str]) -> str:
    """Return versions as one line."""
    named = {"Commit": "commit"}
    return ", ".join(f"{named.get(name, name)} {value}" for name, value in found.items())


def describe_report() -> Rows:
    """Return when and with what the page itself was made."""
    return {"Made": moment(datetime.now().timestamp()), "Versions": describe_versions(versions())}


def _scans(settings: Mapping[str, Any]) -> str | None:
    """Say which scans a run scored, or trained with a fold held out."""
    if "fold" in settings and "folds" in settings:
        fold = f"fold {settings['fold']} (of {settings['folds']}, counted from 0)"
        return f"those of {fold}" if "section" in settings else f"all but those of {fold}"
    if "folds" in settings:
        return f"each of {settings['folds']} folds, by the weights that were trained on the others"
    return f"the datalist's {settings['section']} list" if "section" in settings else None


def _join(facts: Mapping[str, Any], name: str, form: str) -> str:
    return "; ".join(form.format(key, value) for key, value in facts.get(name, {}).items())


def _plane(slice_axis: str) -> str:
    return "across the longest side of each volume's voxels" if slice_axis == "auto" else slice_axis


def _times(sides: Any) -> str:
    return " x ".join(map(str, sides)) if isinstance(sides, list) else str(sides)


def _ensemble(facts: Mapping[str, Any]) -> str | None:
    """Say whose mean the probabilities are; None for one network as it is."""
    networks, flips = facts.get("networks", 1), facts.get("flips", 1)
    if networks * flips == 1:
        return None
    turned = f", each slice turned round in {flips} ways" if flips > 1 else ""
    return f"mean of the probabilities of {networks} network{'s' if networks > 1 else ''}{turned}"
