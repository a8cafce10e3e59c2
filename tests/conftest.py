"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data for development; the test is skipped where it is absent."""
    folder = Path(os.environ.get("KVSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the real data is not here; set KVSEG_DATA to its folder")
    return folder
