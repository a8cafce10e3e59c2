"""Image files and the mask file of each, found by equal paths below two folders."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.files import files_below
from data_prep.common.label_table import EXAMPLE
from data_prep.common.passed_over import counted, kind_of, remarks_on
from data_prep.common.preparation import add_options
from kvseg_monai.errors import InputError
from kvseg_monai.utils.overlap import refuse_overlap


@dataclass(frozen=True)
class Pair:
    """An image and its mask. ``file`` is the image's path below its folder, ``stem`` that without ending."""

    file: str
    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """Folders, endings and suffixes under which a source keeps images and masks.

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


@dataclass(frozen=True)
class Found:
    """Pairs that a source holds, and what was found beside them.

    Args:
        pairs: in the order of their names.
        failed: sentence for each file without partner, and for each that is none: name -> sentence.
        remarks: what else lies in the folders, by kind.
    """

    pairs: list[Pair]
    failed: dict[str, str]
    remarks: list[str]


@dataclass(frozen=True)
class _Folder:
    """Files of the folder of images, or of that of masks."""

    taken: dict[str, Path]  # by the path below the folder, without ending
    odd: dict[str, str]  # named as an image is, but no file that can be read: sentence
    others: dict[Path, str]  # kind of each other file


def find_pairs(source: Path, layout: Layout) -> Found:
    """Return the pairs, and what has no partner or is passed over.

    Raises:
        InputError: when a folder is missing, or there is no image, or two files stand for one.
    """
    images = _files_by_stem(source / layout.images, layout.image_suffix, layout.endings, "--images")
    masks = _files_by_stem(source / layout.masks, layout.mask_suffix, layout.endings, "--masks")
    sides = {"mask": (layout.masks, layout.mask_suffix), "image": (layout.images, layout.image_suffix)}
    failed = {}
    for stem in sorted(images.taken.keys() ^ masks.taken.keys()):
        file, other = (images.taken[stem], "mask") if stem in images.taken else (masks.taken[stem], "image")
        folder, suffix = sides[other]
        partner = f"{Path(folder, stem).as_posix()}{suffix}{layout.endings[-1]}"
        failed[stem] = f"{file} has no {other} {partner}; add it or remove the file"
    pairs = [
        Pair(path.relative_to(source / layout.images).as_posix(), stem, path, masks.taken[stem])
        for stem, path in sorted(images.taken.items())
        if stem in masks.taken
    ]
    used = {*images.taken.values(), *masks.taken.values()}
    others = [kind for path, kind in (masks.others | images.others).items() if path not in used]
    folders = " and ".join(dict.fromkeys((layout.images, layout.masks)))
    return Found(pairs, failed | masks.odd | images.odd, remarks_on(folders, others))


def _files_by_stem(folder: Path, suffix: str, endings: tuple[str, ...], option: str) -> _Folder:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder below --source with {option}")
    side = _Folder({}, {}, {})
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        ending = next((end for end in endings if name[-len(end) :].lower() == end), None)
        stem = name[: -len(ending)] if ending else name
        if kind := kind_of(path, name, ending) or ("" if stem.endswith(suffix) else f"*{ending} without {suffix}"):
            side.others[path] = kind
            continue
        stem = stem.removesuffix(suffix)
        if stem in side.taken:
            raise InputError(f"{path} and {side.taken[stem]} have the same name but for the ending; remove one of them")
        if path.is_file():
            side.taken[stem] = path
        else:
            what = "a link that leads to no file" if path.is_symlink() else "no regular file"
            side.odd[stem] = f"{path} is {what}; get the file itself, or remove it"
    if not side.taken and not side.odd:
        held = f" (but {counted(side.others.values())})" if side.others else ""
        raise InputError(
            f"{folder} holds no file *{suffix}{endings[-1]}{held}; name the folder below --source with {option}"
        )
    return side


def flat_name(text: str) -> str:
    """Make one name of a path: folders become parts of the name."""
    return text.replace("/", "_").replace("\\", "_")


def flat_names(stems: list[str]) -> dict[str, str]:
    """Return the file name of each stem in the target: folders become underscores.

    Raises:
        InputError: when two stems would get one name.
    """
    names: dict[str, str] = {}
    for stem in stems:
        name = flat_name(stem)
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


def take_layout(options: dict[str, Any], endings: tuple[str, ...]) -> Layout:
    """Take the options of the layout out of ``options``.

    Raises:
        InputError: when the source is no folder, there is no such index, or the target lies where is read.
    """
    source, index = options["source"], options["index"]
    if not source.is_dir():
        raise InputError(f"--source {source} is not a folder; give the one that holds {options['images']}")
    if index is not None and not index.is_file():
        raise InputError(f"--index {index} is not a file; correct the path, or leave the option out")
    read = {"source": source, "images": source / options["images"], "masks": source / options["masks"], "index": index}
    refuse_overlap(sources=read, targets={"target": options["target"]})
    names = ("images", "masks", "image_suffix", "mask_suffix")
    return Layout(**{name: options.pop(name) for name in names}, endings=endings)
