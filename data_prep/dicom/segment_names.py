"""Segments of DICOM segmentations, and the names of their classes.

A name alone is not enough: 3D Slicer calls segments Segment_1 and so on, whatever they are, and both kidneys may be
called kidney. So segments are one class where name and codes are equal: of the type, the anatomical region, and their
modifiers, as left and right. A class is called by the segments' name; where a name has several codes, by these too.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pydicom
from pydicom.sr._snomed_dict import mapping

from data_prep.common.label_table import BACKGROUND
from kvseg_monai.dicom.values import listed
from kvseg_monai.errors import InputError

# Where a segment says what it is, and where the item there says which side or part of it.
CODES = {
    "SegmentedPropertyTypeCodeSequence": "SegmentedPropertyTypeModifierCodeSequence",
    "AnatomicRegionSequence": "AnatomicRegionModifierSequence",
    "PrimaryAnatomicStructureSequence": "PrimaryAnatomicStructureModifierSequence",
}
SNOMED_RT = ("SRT", "SNM3", "99SDM")  # one scheme; SNOMED CT, SCT, has taken its place (DICOM PS3.16, 8.1)
Codes = frozenset[tuple[str, str, str]]  # keyword of the sequence, scheme, value


@dataclass(frozen=True)
class Segment:
    """One segment: its label and the codes of what it shows.

    Args:
        label: its name in the file.
        codes: what it is.
        meaning: the codes in words.
        name: of its class, see :func:`class_names`.
    """

    label: str
    codes: Codes = frozenset()
    meaning: str = ""
    name: str = ""


def segment_of(item: pydicom.Dataset, number: int) -> Segment:
    """Read an item of SegmentSequence; a segment without a name is called by the meaning of its codes.

    Raises:
        InputError: there is neither.
    """
    found = list(_concepts(item))
    meaning = " ".join(dict.fromkeys(words for *_, words in found if words))
    label = " ".join(map(str, listed(item.get("SegmentLabel")))).strip()
    label = label if normalised_name(label) else meaning
    if not normalised_name(label):
        raise InputError(f"its segment {number} has neither a name nor a code in words; name it and export it again")
    return Segment(label, frozenset((keyword, scheme, value) for keyword, scheme, value, _ in found), meaning)


def _concepts(item: pydicom.Dataset) -> Iterator[tuple[str, str, str, str]]:
    """Yield keyword, scheme, value and meaning of each code."""
    for keyword, modifier in CODES.items():
        for concept in item.get(keyword) or ():
            yield _concept(keyword, concept)
            yield from (_concept(modifier, part) for part in concept.get(modifier) or ())
        yield from (_concept(modifier, part) for part in item.get(modifier) or ())


def _concept(keyword: str, concept: pydicom.Dataset) -> tuple[str, str, str, str]:
    texts = (concept.get(name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    value = str(next(filter(None, texts), "")).strip()
    scheme = str(concept.get("CodingSchemeDesignator") or "").strip().upper()
    if scheme in SNOMED_RT:
        scheme, value = ("SCT", mapping["SRT"][value]) if value in mapping["SRT"] else ("SRT", value)
    return keyword, scheme, value, str(concept.get("CodeMeaning") or "").strip()


def normalised_name(name: str) -> str:
    """Return a name in one form, whatever its case, blanks, hyphens, underscores, commas and equal signs."""
    return re.sub(r"[\s_\-,=\x00-\x1f\x7f]+", "_", name.lower()).strip("_")


def class_names(segments: Iterable[Segment]) -> dict[Segment, str]:
    """Return the class of each segment, by name: as short as distinguishes the classes.

    A segment without code is of the class that its name has elsewhere, where that is only one. ``background`` is always
    one class.
    """
    kinds: dict[str, dict[Codes, str]] = defaultdict(dict)  # name -> codes -> meaning
    segments = sorted(segments, key=lambda one: (one.label, sorted(one.codes), one.meaning))
    for segment in segments:
        kinds[normalised_name(segment.label)].setdefault(segment.codes, segment.meaning)
    classes = {segment: _class(segment, kinds[normalised_name(segment.label)]) for segment in segments}
    forms = {one: _forms(*one, kinds[one[0]].get(one[1], "")) for one in classes.values()}
    length = dict.fromkeys(forms, 0)
    while True:
        names = {one: forms[one][length[one]] for one in forms}
        uses = Counter(names.values())
        if max(uses.values(), default=1) == 1:
            return {segment: names[one] for segment, one in classes.items()}
        length |= {one: length[one] + 1 for one, name in names.items() if uses[name] > 1 and length[one] < 3}


def _class(segment: Segment, kinds: dict[Codes, str]) -> tuple[str, Codes]:
    name, coded = normalised_name(segment.label), [codes for codes in kinds if codes]
    if name == BACKGROUND:
        return name, frozenset()
    return name, segment.codes or (coded[0] if len(coded) == 1 else segment.codes)


def _forms(name: str, codes: Codes, meaning: str) -> tuple[str, ...]:
    """Return names of a class, each longer: its segments' name, the codes' meanings, the codes, a hash of all."""
    if name == BACKGROUND:
        return (name,) * 4
    values = "_".join(f"{scheme}_{value}" for _, scheme, value in sorted(codes)) or "without_code"
    longer = f"{name}_{_words(meaning) or _words(values)}"
    longest = f"{longer}_{_words(values)}"
    return name, longer, longest, f"{longest}_{hashlib.sha256(repr((name, sorted(codes))).encode()).hexdigest()[:8]}"


def _words(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")
