"""Image files and the mask file of each, found by equal paths below two folders."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from data_prep.label_table import EXAMPLE
from data_prep.preparation import add_options
from kvseg_monai.errors import InputError


@dataclass(frozen=True)
class Pair:
    """An image and its mask. ``file`` is the image's path below its folder, ``stem`` that without ending."""

    file: str
    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """Where a source keeps images and masks.

    Args:
        images: folder below the source; masks: likewise.
        image_suffix: what the names of images have before their ending, as nnU-Net's ``_0000``; mask_suffix: likewise.
        endings: of the files, the longest first.
    """

    images: str
    masks: str
    image_suffix: str
    mask_suffix: str
    endings: tuple[str, ...]


def find_pairs(source: Path, layout: Layout) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs in the order of their names, and for each file without partner a sentence.

    Raises:
        InputError: when a folder is missing, or there is no image, or two files stand for one.
    """
    images = _stems(source / layout.images, layout.image_suffix, layout.endings, "--images")
    masks = _stems(source / layout.masks, layout.mask_suffix, layout.endings, "--masks")
    sides = {"mask": (layout.masks, layout.mask_suffix), "image": (layout.images, layout.image_suffix)}
    lonely = {}
    for stem in sorted(images.keys() ^ masks.keys()):
        file, other = (images[stem], "mask") if stem in images else (masks[stem], "image")
        folder, suffix = sides[other]
        partner = f"{Path(folder, stem).as_posix()}{suffix}{layout.endings[-1]}"
        lonely[stem] = f"{file} has no {other} {partner}; add it or remove the file"
    pairs = [
        Pair(images[stem].relative_to(source / layout.images).as_posix(), stem, images[stem], masks[stem])
        for stem in sorted(images.keys() & masks.keys())
    ]
    return pairs, lonely


def _stems(folder: Path, suffix: str, endings: tuple[str, ...], option: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder below --source with {option}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        ending = next((suffix + ending for ending in endings if name.endswith(suffix + ending)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        stem = name.removesuffix(ending)
        if stem in found:
            raise InputError(f"{path} and {found[stem]} have the same name but for the ending; remove one of them")
        found[stem] = path
    if not found:
        raise InputError(f"{folder} holds no file *{suffix}{endings[-1]}; name the folder below --source with {option}")
    return found


def flat_names(stems: list[str]) -> dict[str, str]:
    """File name of each stem in the target: folders become underscores.

    Raises:
        InputError: when two stems would get one name.
    """
    names: dict[str, str] = {}
    for stem in stems:
        name = stem.replace("/", "_")
        if names.setdefault(name, stem) != stem:
            raise InputError(f"{names[name]} and {stem} would both be named {name}; rename one of them")
    return {stem: name for name, stem in names.items()}


def add_pair_options(parser: argparse.ArgumentParser, *, masks: str) -> None:
    """Add the options that sources of images and masks share."""
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder that holds the images and the masks")
    add("--target", type=Path, required=True, help="folder to write into: new, empty, or a run to go on with")
    add("--labels", required=True, metavar="TABLE", help=f"what the values of a mask mean, as {EXAMPLE}")
    add("--patient", metavar="RULE", help="column:NAME of the index, folder, or a pattern with one group "
        "(default: column:patient)")  # fmt: skip
    add("--index", type=Path, metavar="CSV", help="table with a column 'file' (default: index.csv in --source)")
    add("--images", default="images", help="folder of the images below --source (default: %(default)s)")
    add("--masks", default=masks, help="folder of the masks below --source (default: %(default)s)")
    add("--image-suffix", default="", help="what image names have before their ending, as _0000")
    add("--mask-suffix", default="", help="what mask names have before their ending, as _seg")
    add("--name", help="of the data set, as reports show it")
    add_options(parser)


def take_layout(options: dict, endings: tuple[str, ...]) -> Layout:
    """Take the options of the layout out of ``options``.

    Raises:
        InputError: when the source is no folder.
    """
    if not options["source"].is_dir():
        raise InputError(f"--source {options['source']} is not a folder; give the one that holds {options['images']}")
    names = ("images", "masks", "image_suffix", "mask_suffix")
    return Layout(**{name: options.pop(name) for name in names}, endings=endings)
