"""Descriptions of the segments that MONAI Label writes as DICOM SEG, with the codes and colours of the package.

MONAI Label pairs the names that a viewer sends with the labels that occur, by their order: where an organ is absent,
each later name would stand for another organ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.sr.coding import Code

from kvseg_monai.utils.labels import ANATOMICAL_STRUCTURE, CODES, colours_of


def describe_segments(
    present: Sequence[int], labels: Mapping[str, int], sent: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return an entry for each label that occurs, in the order of its value, as ``dcmqi`` reads them.

    Args:
        present: the labels that occur, background left out.
        labels: name -> value, of the bundle.
        sent: what the viewer sent, one entry with a ``name`` for each of its segments. Names are taken from it for
            values that the bundle does not know.
    """
    known = {value: name for name, value in labels.items()}
    colours = colours_of(labels)
    described = []
    for value in sorted(present):
        own = sent[value - 1].get("name") if value <= len(sent) else None
        name = known.get(value) or own or f"segment {value}"
        described.append({"name": name, "segmentAttribute": _attribute(value, name, colours.get(name))})
    return described


def _attribute(value: int, name: str, colour: list[int] | None) -> dict[str, Any]:
    return {
        "labelID": value,
        "SegmentLabel": name[:64],
        "SegmentDescription": name[:64],
        "SegmentAlgorithmType": "SEMIAUTOMATIC",
        "SegmentAlgorithmName": "kvseg_monai, corrected by a person",
        "SegmentedPropertyCategoryCodeSequence": _code(ANATOMICAL_STRUCTURE),
        "SegmentedPropertyTypeCodeSequence": _code(CODES.get(name, ANATOMICAL_STRUCTURE)),
        **({"recommendedDisplayRGBValue": colour} if colour else {}),
    }


def _code(code: Code) -> dict[str, str]:
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme_designator, "CodeMeaning": code.meaning}
