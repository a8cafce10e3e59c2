"""The note that marks a folder as a phantom, for people and for this package."""

from pathlib import Path

NOTE_FILE = "README.txt"
NOTE = """PHANTOM - computed images, no patient was scanned.

Made by `python -m data_prep.phantom` to try the whole path without a download. The folder has the layout of the
UW-Madison GI Tract data; the bodies, organs and gray values are formulas and random numbers.
Results on it say that the software runs, and nothing about how well a network does on patients.
"""
NOTICE = "PHANTOM: these images are computed, no patient was scanned. The scores say nothing about patients."


def is_phantom(folder: Path) -> bool:
    """Return whether ``folder`` holds a phantom, by its note."""
    try:
        return (folder / NOTE_FILE).read_text(encoding="utf-8").startswith(NOTE.splitlines()[0])
    except (OSError, UnicodeDecodeError):
        return False
