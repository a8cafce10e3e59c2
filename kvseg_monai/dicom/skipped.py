"""What was left out, and why."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Skipped:
    """A file or series that gives no volume.

    Args:
        name: path relative to the folder that was searched; of a series, the path of its first slice.
        reason: a sentence without full stop.
        fault: whether the user should look into it; False where it is left out by rule, as a localizer is.
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
    """Tell what was left out: each fault and each volume on its own, files left out by rule counted by reason."""
    each, rules = [], defaultdict(list)
    for item in skipped:
        if item.fault or item.volume:
            each.append(str(item))
        else:
            rules[item.reason].append(item.name)
    return each + [
        f"{len(names)} {'file' if len(names) == 1 else 'files'}: {reason} (first: {names[0]})"
        for reason, names in sorted(rules.items())
    ]
