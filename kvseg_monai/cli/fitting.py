"""Parts of a training's command line that the evaluation and the inference of its weights take as well."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from kvseg_monai.bundle.find import TRAIN, find_bundle, find_overlay
from kvseg_monai.bundle.unknown_options import lay_over, split_id
from kvseg_monai.errors import InputError
from kvseg_monai.utils.run_options import RUN_OPTIONS, is_flag, read_mapping

SECTIONS = ("validate", "initialize", "run")  # each configuration has its own


def fitting_words(
    configuration: str, bundle: str, overlays: Sequence[str], options: Sequence[str], *, without: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the overlays and the options of a training that fit one of the bundle's configurations, as words.

    Args:
        configuration: path in the bundle, ``configs/evaluate.json``.
        bundle: name or folder.
        overlays: that were laid over the training.
        options: words, each option's name with or before its value.
        without: names of options that are left out.

    Raises:
        InputError: an overlay of more than the training needs a part of the training.
    """
    folder = find_bundle(bundle)
    known = read_mapping(folder / configuration)
    laid = {overlay: read_mapping(find_overlay(overlay, folder)) for overlay in overlays}
    if configuration != TRAIN:
        alone = set(read_mapping(folder / TRAIN)) - set(known)
        laid = {name: content for name, content in laid.items() if not _is_for({*alone, *SECTIONS}, content)}
        for name, content in laid.items():
            _refuse_needs(name, content, alone - {each for other in laid.values() for each in other}, configuration)
    known = lay_over([known, *laid.values()])
    fitting = []
    for name, group in _groups(options):
        first = split_id(name)[0]
        fits = first in known and not (configuration != TRAIN and first in SECTIONS)
        if name.removeprefix("no") not in without and name not in without and (fits or name in RUN_OPTIONS):
            fitting.extend(group)
    return [word for overlay in laid for word in ("--overlay", overlay)], fitting


def _is_for(sections: Collection[str], overlay: Mapping[str, Any]) -> bool:
    """Return whether an overlay changes a part of one of these sections, or sets one anew."""
    parts = [split_id(name.removeprefix("+")) for name in overlay]
    return any(first in sections and (inner or isinstance(overlay.get(first), dict | list)) for first, *inner in parts)


def _refuse_needs(name: str, overlay: Mapping[str, Any], alone: Collection[str], configuration: str) -> None:
    needed = sorted(set(re.findall(r"@(\w+)", json.dumps(overlay))) & set(alone))
    if needed:
        file = Path(configuration).name
        raise InputError(
            f"--overlay {name} refers to {', '.join(needed)}, which {file} has not, so what it trains cannot be scored "
            "by itself; train each fold by --fold, and score it with an overlay that builds the same network"
        )


def _groups(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option's name with its words."""
    for word, following in pairwise([*words, "--"]):
        if is_flag(word):
            name, equal, _ = word.removeprefix("--").partition("=")
            yield name, [word] if equal or is_flag(following) else [word, following]
