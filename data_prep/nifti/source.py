"""Prepare folders of NIfTI images and masks: ``python -m data_prep.nifti --source DIR --target DIR --labels TABLE``.

An image and its mask have the same path below ``images`` and ``labels`` (``--images``, ``--masks``), but for a suffix
that one of them may have (nnU-Net: ``--images imagesTr --image-suffix _0000 --masks labelsTr``). Voxels are written as
they are, with the image's affine and nothing else of its header, which may identify the patient.
"""

import argparse
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.files import file_state, fingerprint
from data_prep.common.index import make_key, read_index
from data_prep.common.label_table import LabelTable, apply_table, parse_number_table, voxels_per_class
from data_prep.common.pairs import Found, Layout, Pair, add_pair_options, find_pairs, flat_names, take_layout
from data_prep.common.preparation import write_scan
from data_prep.common.volume_set import VolumeSet, run
from kvseg_monai.data.nifti import read_volume
from kvseg_monai.errors import InputError
from kvseg_monai.utils.program import program

SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class NiftiScan:
    """An image file and its mask file."""

    name: str
    patient: str
    pair: Pair
    table: LabelTable

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """Files of the image and of the labels."""
        return (self.pair.image,), (self.pair.mask,)

    def fingerprint(self) -> str:
        """Hash of the table and of size and time of the files."""
        return fingerprint(self.table.text, *map(file_state, chain(*self.files)))


def convert_scan(scan: NiftiScan, target: Path) -> dict[str, Any]:
    """Write the volumes and the record of one scan.

    Raises:
        InputError: when a file cannot be read, the two are on different grids, or the mask holds unknown values.
    """
    voxels, affine = read_volume(scan.pair.image)
    mask, mask_affine = read_volume(scan.pair.mask)
    if mask.shape != voxels.shape:
        raise InputError(
            f"{scan.pair.mask} has the shape {mask.shape}, its image {voxels.shape}; both must be equal: "
            "make the mask again on the grid of the image"
        )
    if not np.allclose(mask_affine, affine, rtol=0, atol=SAME_PLACE_MM):
        raise InputError(
            f"{scan.pair.mask} has another affine than its image; both must lie at the same place: "
            "make the mask again on the grid of the image"
        )
    labels = apply_table(mask, scan.table, file=scan.pair.mask)
    facts = {"shape": list(voxels.shape), "voxels_per_class": voxels_per_class(labels, scan.table.names)}
    return write_scan(scan, target, voxels=voxels, labels=labels, affine=affine, facts=facts)


def find_scans(
    source: Path, layout: Layout, *, table: LabelTable, patient: str | None, index_file: Path | None
) -> tuple[list[NiftiScan], Found]:
    """Return the scans of ``source``, and what was found with them.

    Raises:
        InputError: for a folder that is missing, and images whose patient is not known.
    """
    index = read_index(index_file or source / "index.csv")
    key = make_key("--patient", patient, index, column="patient")
    if key is None:
        raise InputError(
            "--patient is missing; say whose images these are, so that nobody is in two lists: a column of index.csv "
            "(column:NAME), folder, or a pattern such as '(case[0-9]+)_'"
        )
    found = find_pairs(source, layout)
    names = flat_names([pair.stem for pair in found.pairs])
    return [NiftiScan(names[pair.stem], key.of(pair.file), pair, table) for pair in found.pairs], found


def parse(arguments: list[str] | None = None) -> tuple[VolumeSet[Any], Path, dict[str, Any]]:
    """Read the command line and the names of the files: what there is, the target, and the options of the split."""
    parser = argparse.ArgumentParser(
        prog=program("data_prep.nifti"), description="Turn NIfTI images and masks into volumes and a datalist.json."
    )
    add_pair_options(parser, masks="labels")
    options = vars(parser.parse_args(arguments))
    layout = take_layout(options, (".nii.gz", ".nii"))
    table = parse_number_table(options.pop("labels"))
    scans, found = find_scans(
        options.pop("source"), layout, table=table, patient=options.pop("patient"), index_file=options.pop("index")
    )
    name = options.pop("name") or "NIfTI images and masks"
    volumes = VolumeSet(
        "data_prep.nifti", name, scans, convert_scan, table.names, failed=found.failed, remarks=found.remarks
    )
    return volumes, options.pop("target"), options


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, prepare, print the summary; return the exit code."""
    return run(*parse(arguments))
