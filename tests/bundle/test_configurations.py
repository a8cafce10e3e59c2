"""The configurations read as a story: few and short expressions, and names that the package's rooms declare."""

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support import ROOT

from kvseg_monai.transforms import CASE

FILES = sorted([*(ROOT / "bundles").glob("*/configs/*.json"), *(ROOT / "bundles" / "examples").glob("*.json")])
NAME = re.compile(r"kvseg_monai(?:\.\w+)+")


def texts(part: object) -> Iterator[str]:
    """All texts of a configuration, keys left out."""
    if isinstance(part, str):
        yield part
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from texts(item)


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT / "bundles"))


def test_all_are_looked_at():
    assert len(FILES) == 9 * 5 + 6


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_expressions_are_few_and_short(file):
    found = [text for text in texts(json.loads(file.read_text())) if text.startswith("$")]
    assert len(found) <= 25, found
    assert [text for text in found if len(text) > 100] == []
    for text in found:  # one line says one thing
        assert len(ast.parse(re.sub("@[_a-z#0-9]+", "x", text[1:])).body) == 1


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_each_name_of_ours_is_declared_by_its_room(file):
    for name in {name for text in texts(json.loads(file.read_text())) for name in NAME.findall(text)}:
        room, _, last = name.rpartition(".")
        assert last in import_module(room).__all__, name
        assert hasattr(import_module(room), last), name


def test_the_name_of_a_case_is_where_the_handlers_look_for_it():
    """``StopOnNan`` and ``RandSlicesd`` read what the configuration writes."""
    for file in FILES:
        if file.name == "train.json":
            first = json.loads(file.read_text())["loading"][0]
            assert (first["_target_"], first["names"]) == ("CopyItemsd", CASE)
