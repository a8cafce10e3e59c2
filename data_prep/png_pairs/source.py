"""Prepare folders of PNG slices and masks: ``python -m data_prep.png_pairs --source DIR --target DIR --labels TABLE``.

An image (gray, 8 or 16 bits) and its mask (gray or palette) have the same path below ``images`` and ``masks``. An
``index.csv`` with a column ``file`` may name ``patient``, ``scan``, ``slice`` and ``spacing_mm`` of each image. Slices
of one scan with numbers in a row become one volume; any other slice is a volume of its own.

PNG does not say where a slice lies. It is taken as radiologists display axial slices: columns to the patient's left,
rows to the back, slice numbers towards the feet.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.index import read_index
from data_prep.common.label_table import apply_table, parse_number_table, voxels_per_class
from data_prep.common.pairs import add_pair_options, take_layout
from data_prep.common.png_io import read_png
from data_prep.common.preparation import write_scan
from data_prep.common.volume_set import VolumeSet, run
from data_prep.png_pairs.scans import PngScan, find_scans, make_rules
from kvseg_monai.errors import InputError
from kvseg_monai.utils.geometry import radiological_affine
from kvseg_monai.utils.program import program

IMAGE_KINDS = ("8-bit gray", "16-bit gray")
MASK_KINDS = (*IMAGE_KINDS, "8-bit palette", "4-bit palette", "2-bit palette", "1-bit palette")


def read_gray(file: Path, kinds: tuple[str, ...]) -> np.ndarray:
    """Read a PNG of one of ``kinds`` as (height, width).

    Raises:
        InputError: for any other file.
    """
    pixels, kind = read_png(file)
    if kind not in kinds:
        raise InputError(f"{file} is {kind}; allowed are {', '.join(kinds)}: save it as one of these")
    return pixels


def convert_scan(scan: PngScan, target: Path) -> dict[str, Any]:
    """Write the volumes and the record of one scan.

    Raises:
        InputError: when a file cannot be read, sizes differ, or a mask holds unknown values.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for pair in scan.slices:
        image, mask = read_gray(pair.image, IMAGE_KINDS), read_gray(pair.mask, MASK_KINDS)
        for file, pixels in ((pair.mask, mask), (pair.image, image)):
            expected = image if file == pair.mask else (images or [image])[0]
            if pixels.shape != expected.shape:
                raise InputError(
                    f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels, not {expected.shape[1]} x "
                    f"{expected.shape[0]} (width x height) as {'its image' if file == pair.mask else 'the first slice'}"
                    "; both must be equal: make it again"
                )
        images.append(image)
        labels.append(apply_table(mask, scan.table, file=pair.mask))
    voxels, label = np.stack(images).T, np.stack(labels).T  # (slice, y, x) -> (x, y, slice)
    facts = {"shape": list(voxels.shape), "voxels_per_class": voxels_per_class(label, scan.table.names)}
    affine = radiological_affine(scan.spacing, towards_feet=True)
    return write_scan(scan, target, voxels=voxels, labels=label, affine=affine, facts=facts)


def parse(arguments: list[str] | None = None) -> tuple[VolumeSet[Any], Path, dict[str, Any]]:
    """Read the command line and the names of the files: what there is, the target, and the options of the split."""
    parser = argparse.ArgumentParser(
        prog=program("data_prep.png_pairs"), description="Turn PNG slices and masks into volumes and a datalist.json."
    )
    add_pair_options(parser, masks="masks")
    add = parser.add_argument
    add("--spacing", help="mm between pixels, as 1.5 or 1.5,1.6, or column:NAME (default: column:spacing_mm)")
    add("--slice-gap", type=float, help="mm between the slices of a volume (a lone slice counts as 1 mm thick)")
    add("--scan", metavar="RULE", help="which slices make a volume, as --patient (default: column:scan)")
    add("--slice", metavar="RULE", dest="slice_", help="number of a slice, as --patient (default: column:slice)")
    options = vars(parser.parse_args(arguments))
    layout = take_layout(options, (".png",))
    source, table = options.pop("source"), parse_number_table(options.pop("labels"))
    index = read_index(options.pop("index") or source / "index.csv")
    names = ("patient", "scan", "slice_", "spacing", "slice_gap")
    rules = make_rules(index, **{name: options.pop(name) for name in names})
    name = options.pop("name") or "PNG images and masks"
    scans, found = find_scans(source, layout, rules, table)
    volumes = VolumeSet(
        "data_prep.png_pairs", name, scans, convert_scan, table.names, failed=found.failed, remarks=found.remarks
    )
    return volumes, options.pop("target"), options


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, prepare, print the summary; return the exit code."""
    return run(*parse(arguments))
