"""A tiny source in the raw layout: 6 x 4 pixels, three slices a scan, which a test may then spoil."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.common import volume_set
from data_prep.uw_madison import source as uw_madison

CLASSES = ("large_bowel", "small_bowel", "stomach")
WIDTH, HEIGHT = 6, 4


def prepare(source: Path, target: Path, *, include_bad_scans: bool = False, **options) -> dict:
    """Prepare a raw folder and return the summary; ``options`` are those of every preparation."""
    return volume_set.prepare(uw_madison.read_source(source, include_bad_scans=include_bad_scans), target, **options)


class RawSource:
    """A raw folder under construction: change ``rows`` or the files, then ``save()``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[list[str]] = []
        self.columns = ["id", "class", "segmentation"]

    def add(self, scan: str, slices: int = 3) -> "RawSource":
        for number in range(1, slices + 1):
            # Each pixel says where it is: 1000 per slice, 10 per row, 1 per column.
            rows, columns = np.mgrid[:HEIGHT, :WIDTH]
            self.write(self.path(scan, number), (1000 * number + 10 * rows + columns).astype(np.uint16))
            for organ in CLASSES:
                self.rows.append([f"{scan}_slice_{number:04d}", organ, ""])
        return self

    def path(self, scan: str, number: int, size: str = f"{WIDTH}_{HEIGHT}", spacing: str = "1.50_1.63") -> Path:
        folder = self.root / "train" / scan.split("_")[0] / scan / "scans"
        return folder / f"slice_{number:04d}_{size}_{spacing}.png"

    def write(self, path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def label(self, scan: str, number: int, organ: str, runs: str) -> None:
        for row in self.rows:
            if row[:2] == [f"{scan}_slice_{number:04d}", organ]:
                row[2] = runs

    def save(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "train.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([self.columns, *self.rows])
        return self.root
