"""Files and series that were left out, with the reasons, as sentences."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

NOT_DICOM = "not a DICOM file"
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
MOST_KINDS = 8  # that one sentence names


@dataclass(frozen=True)
class Skipped:
    """A file or series that gives no volume.

    Args:
        name: path relative to the folder that was searched, with / at the end for a folder; of a series, the path of
            its first slice.
        reason: a sentence without full stop.
        fault: whether the user should check it; False where it is left out by rule, as a localizer is.
        modality: of the file's header, where it has one.
        series_uid: SeriesInstanceUID, where known.
        volume: name of the volume that it would be, where it is a volume.
    """

    name: str
    reason: str
    fault: bool = False
    modality: str = ""
    series_uid: str = ""
    volume: str = ""

    def __str__(self) -> str:
        """Return name and reason."""
        return f"{self.name}: {self.reason}"


def sentences(skipped: Iterable[Skipped]) -> list[str]:
    """Return sentences on what was left out: each fault and each volume on its own, the rest counted by reason."""
    each, rules = [], defaultdict(list)
    for item in skipped:
        if item.fault or item.volume:
            each.append(str(item))
        else:
            rules[item.reason].append(item.name)
    return each + [_counted(reason, names) for reason, names in sorted(rules.items())]


def ending(name: str) -> str:
    """Return the last suffix of a file's name in lower case, "" where it has none or it is a number, as of a UID.

    Of ``.nii.gz`` both count.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    return "" if suffix[1:].isdecimal() or len(suffix) > len(".parrec12") else suffix


def _counted(reason: str, names: Sequence[str]) -> str:
    noun = "folder" if names[0].endswith("/") else "file"
    kinds = f" ({_kinds(names)})" if reason == NOT_DICOM else ""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}: {reason}{kinds} (first: {names[0]})"


def _kinds(names: Sequence[str]) -> str:
    """Count files by ending."""
    kinds = Counter(map(ending, names)).most_common()
    counts = [f"{count} {kind or 'without ending'}" for kind, count in kinds[:MOST_KINDS]]
    rest = sum(count for _, count in kinds[MOST_KINDS:])
    archives = "; archives are not opened, unpack them" if ARCHIVES & {kind for kind, _ in kinds} else ""
    return ", ".join(counts + [f"{rest} others"] * bool(rest)) + archives
