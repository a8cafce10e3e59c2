"""Write a predicted label map as DICOM SEG, with coded organs, referring to the MR series that it was made from.

``python -m kvseg_monai.dicom_seg --prediction MAP.nii.gz --series DICOM_DIR --target OUT.dcm``; in the bundles'
inference :class:`kvseg_monai.transforms.SaveDicomSegd` does the same (``bundles/examples/dicom_seg.json``).
"""

import argparse
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.bundle.find import METADATA, find_bundle
from kvseg_monai.data.outputs import label_map_name
from kvseg_monai.data.readers import NiftiReader
from kvseg_monai.dicom import Series
from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.dicom.segmentation import Algorithm
from kvseg_monai.errors import InputError
from kvseg_monai.transforms.save_dicom_seg import UNNAMED, write_dicom_seg
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.labels import CODES, read_codes
from kvseg_monai.utils.overlap import refuse_overlap

VOLUME_NAME = re.compile(r"series-?\d+-[0-9a-f]{10}(-\d+)?")  # see kvseg_monai.dicom.Series


def find_series_of(prediction: Path, source: Path) -> Series:
    """Return the volume that a label map is named after, as the bundles name it, else the only one of ``source``.

    The grid alone does not distinguish two patients who were scanned by one protocol; the name, of which the series'
    UID is a part, does.

    Raises:
        InputError: when that volume is not there or at fault, or there are others and no name to choose by.
    """
    name = label_map_name(prediction, suffix="").name
    if not VOLUME_NAME.fullmatch(name):
        return volume_at(source)
    try:
        found = volume_at(source / name if source.exists() else source)
    except InputError as error:
        raise InputError(f"{error} (the label map is named after that volume; rename it if it is of another)") from None
    if found.name != name:
        raise InputError(f"{prediction} is named after another volume than {source}; correct one of the two")
    return found


def read_bundle(folder: Path) -> tuple[list[str], Algorithm]:
    """Return the class names of a bundle's output, background left out, and its name and version.

    Raises:
        InputError: when its metadata lack them.
    """
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        algorithm = Algorithm(metadata["name"], metadata["version"])
        return [names[str(value)] for value in range(1, len(names))], algorithm
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a bundle's metadata ({error}); correct --bundle") from error


def convert(options: argparse.Namespace) -> str:
    """Write the DICOM SEG that the command line asks for; return the summary."""
    if options.target.exists() and not options.overwrite:
        raise InputError(f"{options.target} exists; give another --target, or --overwrite to replace it")
    bundle = find_bundle(options.bundle, needs=[METADATA]) if options.bundle else None
    sources = {name: getattr(options, name) for name in ("prediction", "series", "codes")} | {"bundle": bundle}
    refuse_foreign([options.target])
    refuse_overlap(sources=sources, targets={"target": options.target})
    series = find_series_of(options.prediction, options.series)
    names, algorithm = read_bundle(bundle) if bundle else (list(CODES), UNNAMED)
    reader = NiftiReader()
    label_map, meta = reader.get_data(reader.read(options.prediction))
    if not options.series.exists():  # it names a volume of a folder, see kvseg_monai.dicom.listing
        refuse_overlap(sources={"series": options.series.parent}, targets={"target": options.target})
    return write_dicom_seg(
        options.target,
        label_map,
        meta["affine"],
        name=str(options.prediction),
        series=series,
        class_names=options.labels or names,
        codes={**CODES, **read_codes(options.codes)} if options.codes else CODES,
        algorithm=algorithm,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, write the DICOM SEG, print its summary."""
    parser = argparse.ArgumentParser(
        prog="python -m kvseg_monai.dicom_seg",
        description="Write a label map as DICOM SEG. The file identifies the patient, as the series does.",
    )
    add = parser.add_argument
    add("--prediction", required=True, type=Path, metavar="FILE", help="label map, NIfTI, on the series' grid")
    add("--series", required=True, type=Path, metavar="DIR", help="DICOM folder or file of the MR series")
    add("--target", required=True, type=Path, metavar="FILE", help="DICOM file to write")
    add("--bundle", metavar="DIR", help="bundle that made the label map, folder or name: its classes and algorithm")
    add("--labels", nargs="+", metavar="NAME", help=f"names of labels 1, 2, ... (default: {' '.join(CODES)})")
    add("--codes", type=Path, metavar="FILE", help='JSON of further codes: {"liver": {"value": .., "meaning": ..}}')
    add("--overwrite", action="store_true", help="replace --target, which this command made")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    print(f"wrote {options.target}: {convert(options)}")
