"""The house's rules: imports run downwards, no circle of files, no two folders that import each other, a bare root."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

PACKAGES = ("kvseg_monai", "data_prep")
LEAVES = ("kvseg_monai", "data_prep", "errors", "_version")  # of the root: these alone may be imported


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the packages."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): file for file, parts in names.items()}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, also within functions."""
    known = modules()
    return {name: {target for target in _targets(file, known) if target != name} for name, file in known.items()}


def _targets(file: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inner if name in known]
            yield from found
            if node.module in known and len(found) < len(inner):
                yield node.module


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way through the graph that comes back to where it began; [] where there is none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, ())):
            if found := visit(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def folder_of(name: str) -> str:
    """The folder of a module; an entry point, which imports any folder and is imported by none, stands for itself."""
    file = modules()[name]
    folder = file.parent.relative_to(ROOT).as_posix()
    return f"entry point {name}" if folder in PACKAGES and name.split(".")[-1] not in LEAVES else folder


def test_no_circle_of_files():
    found = circle(imports())
    assert not found, " -> ".join(found)


def test_no_two_folders_import_each_other():
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, targets in imports().items():
        for target in targets:
            if folder_of(name) != folder_of(target):
                arrows[folder_of(name), folder_of(target)].append(f"{name} imports {target}")
    both = [(arrows[pair], arrows[pair[::-1]]) for pair in arrows if pair[0] < pair[1] and pair[::-1] in arrows]
    assert not both, both


def test_the_folders_make_no_circle():
    graph = defaultdict(set)
    for name, targets in imports().items():
        graph[folder_of(name)] |= {folder_of(target) for target in targets} - {folder_of(name)}
    found = circle(graph)
    assert not found, " -> ".join(found)


def test_the_root_holds_entry_points_that_no_module_imports():
    root = {f"kvseg_monai.{file.stem}" for file in (ROOT / "kvseg_monai").glob("*.py")} - {"kvseg_monai.__init__"}
    assert len(root) + 1 <= 13, sorted(root)
    imported = set().union(*imports().values())
    assert root & imported <= {"kvseg_monai._version", "kvseg_monai.errors"}, root & imported


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_it_is_for(package):
    for file in (ROOT / package).rglob("__init__.py"):
        assert len(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "") > 20, file


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
