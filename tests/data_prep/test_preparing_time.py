"""The benchmark of the preparations runs on each kind of source, and times the same work."""

import nibabel as nib
import numpy as np
import pytest
from made_sources import MAKE, MODULES

from data_prep.common.benchmark import copy_plainly, time_both


@pytest.mark.parametrize("kind", list(MAKE))
def test_both_ways_are_timed(kind, tmp_path):
    arguments = MAKE[kind](tmp_path / "in")
    seconds = time_both(kind, arguments, workers=1, rounds=2)
    assert {name: times.shape for name, times in seconds.items()} == {"prepared": (2,), "plain": (2,)}
    assert all((times > 0).all() for times in seconds.values())
    scan = MODULES[kind].parse([*arguments, "--target", "unused"])[0].scans[0]
    copy_plainly(kind, tmp_path / "out", (0, tuple(filter(None, scan.files))))
    written = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(written) == 2  # image and labels
    assert np.asarray(nib.load(written[0]).dataobj).size == 7 * 5 * 3
