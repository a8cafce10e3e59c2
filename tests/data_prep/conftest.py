"""A raw source to spoil, and a place for what is prepared from it."""

import pytest
from made_raw import RawSource


@pytest.fixture
def raw(tmp_path):
    return RawSource(tmp_path / "raw")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out"
