"""What of a training's command line the evaluation and the inference of its weights take as well."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from kvseg_monai.bundle.find import TRAIN, find_bundle, find_overlay
from kvseg_monai.bundle.unknown_options import lay_over, split_id
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
    """
    folder = find_bundle(bundle)
    known = read_mapping(folder / configuration)
    training = read_mapping(folder / TRAIN)
    laid = {overlay: read_mapping(find_overlay(overlay, folder)) for overlay in overlays}
    if configuration != TRAIN:  # an overlay of what is the training's alone is for the training
        alone = set(training) - set(known)
        laid = {
            overlay: content
            for overlay, content in laid.items()
            if not {split_id(name.removeprefix("+"))[0] for name in content} & {*alone, *SECTIONS}
        }
    known = lay_over([known, *laid.values()])
    fitting = []
    for name, group in _groups(options):
        first = split_id(name)[0]
        fits = first in known and not (configuration != TRAIN and first in SECTIONS)
        if name.removeprefix("no") not in without and name not in without and (fits or name in RUN_OPTIONS):
            fitting.extend(group)
    return [word for overlay in laid for word in ("--overlay", overlay)], fitting


def _groups(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option's name with its words."""
    for word, following in pairwise([*words, "--"]):
        if is_flag(word):
            name, equal, _ = word.removeprefix("--").partition("=")
            yield name, [word] if equal or is_flag(following) else [word, following]
