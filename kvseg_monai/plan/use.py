"""Settings of a training, by a plan, and of what uses its weights, by what these carry."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from kvseg_monai.plan.file import PLAN, Plan, hash_datalist, read_plan
from kvseg_monai.utils.run_record import among_callers
from kvseg_monai.utils.settings import NETWORK, is_setting, trained_settings

logger = logging.getLogger(__name__)

AUTO, NONE = "auto", ("none", "null", "false", "")


def planned_settings(plan: str | None, dataset_dir: str | Path) -> dict[str, Any]:
    """Return the settings of a plan, name -> value; the bundles' ``settings`` in training. Logs which are used.

    Args:
        plan: ``auto`` for the ``plan.json`` beside the datalist, where there is one; a file; or ``none``.
        dataset_dir: the folder with the datalist.

    Raises:
        InputError: the file that is named is missing, or a plan is damaged or impossible.
    """
    path = _find(plan, dataset_dir)
    if path is None:
        return {}
    found = read_plan(path)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several
        _report(path, found, dataset_dir)
    return found.values()


def settings_of_weights(
    ckpt_path: str | Path | Sequence[str | Path], dataset_dir: str | Path | None = None
) -> dict[str, Any]:
    """Return the settings that weights carry, name -> value: ``settings`` in evaluation and inference.

    Args:
        ckpt_path: the weights; of several, the first.
        dataset_dir: where there are no weights yet, as on a client of federated training, its plan counts.

    Raises:
        InputError: that plan is damaged or impossible.
    """
    found = trained_settings(ckpt_path)
    path = None if found or dataset_dir is None else _find(AUTO, dataset_dir)
    return found if path is None else read_plan(path).values()


def _find(plan: str | None, dataset_dir: str | Path) -> Path | None:
    if plan is None or str(plan).lower() in NONE:
        return None
    if plan != AUTO:
        return Path(plan)
    beside = Path(dataset_dir) / PLAN
    return beside if os.path.lexists(beside) else None


def _report(path: Path, plan: Plan, dataset_dir: str | Path) -> None:
    parser = among_callers(ConfigParser)
    changed = [] if parser is None else list(_overridden(parser, plan.values()))
    logger.info(
        "settings by the plan %s%s; --plan none goes without it",
        path,
        f", but for {', '.join(changed)}" if changed else "",
    )
    if plan.datalist and plan.datalist != hash_datalist(dataset_dir):
        logger.warning("%s was made for another datalist; make it again: python -m kvseg_monai.plan DATA", path)


def _overridden(parser: ConfigParser, settings: Mapping[str, Any]) -> list[str]:
    """Return the options that a plan sets and that have another value in a configuration, as name and value."""
    places = {place: value for name, value in settings.items() for place in (name, f"{NETWORK}#{name}")}
    given = {place: parser.get(place) for place in places if place in parser}
    return [f"{place} {given[place]} instead of {places[place]}" for place in given if not is_setting(given[place])]
