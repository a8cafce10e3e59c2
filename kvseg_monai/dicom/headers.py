"""Read the header of a DICOM file, and say of what is no MR slice why it is left out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

from kvseg_monai.dicom.frames import FRAME_GROUPS, TAGS, Facts, Frame, facts_of, frames_of
from kvseg_monai.dicom.skipped import NOT_DICOM, Skipped
from kvseg_monai.dicom.values import listed
from kvseg_monai.errors import InputError

DICOMDIR = "1.2.840.10008.1.3.10"
META = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"
MANUFACTURER = "kvseg_monai"  # of what we write, so that it is known again


def read_header(path: Path, name: str) -> list[Frame] | Skipped:
    """Return the slices of an MR file, or why it has none. Damage of any kind is a reason, not an exception."""
    try:
        facts, meta = read_facts(path, ["SOPClassUID", "SamplesPerPixel"])
        if facts is None:
            return Skipped(name, NOT_DICOM)
        reason = _left_out(facts, meta)
        if reason:
            modality, uid = (str(facts.get(keyword, "")) for keyword in ("Modality", "SeriesInstanceUID"))
            return Skipped(name, reason, modality=modality, series_uid=uid)
        return frames_of(facts, path, name, syntax=str(meta.get("TransferSyntaxUID", "")))
    except InputError as error:
        return Skipped(name, str(error), fault=True)
    except OSError as error:
        return Skipped(name, f"cannot be read ({error.strerror or type(error).__name__})", fault=True)
    except Exception as error:  # on damaged files pydicom raises whatever its parsing meets; its text may quote a name
        return Skipped(name, f"the DICOM header is damaged ({type(error).__name__}); copy the file again", fault=True)


def read_facts(path: Path, further: list[str]) -> tuple[Facts | None, Facts]:
    """Return what a header says of slices, and of the ``further`` keywords, and META of the file.

    The first is None where the file has not DICOM's mark, nor begins with an element of group 2 or 8 as files without
    preamble do.
    """
    with quiet(), path.open("rb") as stream:
        start = stream.read(132)
        if start[128:] != b"DICM" and (start[:2] not in (b"\x02\x00", b"\x08\x00") or start[3:4] != b"\x00"):
            return None, {}
        stream.seek(0)
        dataset = pydicom.dcmread(stream, specific_tags=[*TAGS, *further], stop_before_pixels=True, force=True)
        meta = dataset.file_meta
        return facts_of(dataset), {keyword: meta[keyword].value for keyword in META if keyword in meta}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings quote header values: they may identify the patient."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def _left_out(facts: Facts, meta: Facts) -> str | None:
    """Say why a file is left out by rule, None where it is not."""
    modality = str(facts.get("Modality", ""))
    kinds = {str(kind).upper() for kind in listed(facts.get("ImageType"))}
    if meta.get("MediaStorageSOPClassUID") == DICOMDIR:
        return "a DICOMDIR; the files themselves are searched, never the paths that it holds"
    if not facts.get("SOPClassUID"):
        return "not a DICOM object (it has no SOPClassUID)"
    if modality != "MR":
        return f"modality {modality[:16] or 'not stated'}, only MR is read"
    if facts["SOPClassUID"] == SPECTROSCOPY or "Rows" not in facts:
        return "holds no image"
    if kinds & {"LOCALIZER", "MOSAIC", "PROJECTION IMAGE"}:
        return "a localizer, mosaic or projection (ImageType)"
    if int(facts.get("SamplesPerPixel") or 1) != 1:
        return "a colour image"
    if "SECONDARY" in kinds and not {"ImagePositionPatient", FRAME_GROUPS} & facts.keys():
        return "a secondary capture with no position in the patient"
    return None
