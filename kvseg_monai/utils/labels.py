"""Meaning of the labels, in one table: SNOMED CT codes by name, and a colour for each position in the list.

The codes are those of DICOM PS3.16 as pydicom ships it, CID 7151 for the organs.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from kvseg_monai.errors import InputError

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")  # of CID 7150; pydicom 2 has an older value
CODES = {
    "large_bowel": codes.cid7151.LargeIntestine,
    "small_bowel": codes.cid7151.SmallIntestine,
    "stomach": codes.cid7151.Stomach,
}

# Okabe and Ito's palette, distinct for the colour-blind, bright ones first: they must stand out on grey tissue.
COLOURS = ("#e69f00", "#56b4e9", "#00b37d", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")


def colour_of(index: int) -> str:
    """Return the colour of foreground class ``index`` (counted from zero); they repeat after seven."""
    return COLOURS[index % len(COLOURS)]


def rgb_of(index: int) -> tuple[int, int, int]:
    """Return the red, green and blue, 0 to 255, of :func:`colour_of`."""
    red, green, blue = bytes.fromhex(colour_of(index)[1:])
    return red, green, blue


def colours_of(labels: Mapping[str, int]) -> dict[str, list[int]]:
    """Return name -> [red, green, blue], 0 to 255, of labels given as name -> value; the background, 0, has none."""
    return {name: list(rgb_of(value - 1)) for name, value in labels.items() if value > 0}


def read_codes(path: str | Path) -> dict[str, Code]:
    """Read further codes: a JSON object of label name -> {"value", "meaning", "scheme"}; the scheme may be left out.

    Raises:
        InputError: when the file is missing or holds anything else.
    """
    rule = 'it must hold an object like {"liver": {"value": "10200004", "meaning": "Liver", "scheme": "SCT"}}'
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {name: _code(**code) for name, code in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as codes ({error}); {rule}") from error
    if not all(_is_code(code) for code in found.values()):
        raise InputError(f"{path} holds a code that is no text, or too long (value 16, meaning 64 characters); {rule}")
    return found


def _code(value: str, meaning: str, scheme: str = "SCT") -> Code:
    return Code(value, scheme, meaning)


def _is_code(code: Code) -> bool:
    """Whether DICOM can hold it: value and scheme up to 16 characters, meaning up to 64."""
    limits = {"value": 16, "meaning": 64, "scheme_designator": 16}
    texts = {part: getattr(code, part) for part in limits}
    return all(isinstance(text, str) and 0 < len(text) <= limits[part] for part, text in texts.items())
