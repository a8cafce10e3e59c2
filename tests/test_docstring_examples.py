"""The examples of the docstrings: each public name of networks, blocks, conversion and metrics has one."""

import doctest
import importlib
import inspect

import pytest

ROOMS = ("blocks", "conversion", "metrics", "nets")


def public_names() -> list[tuple[str, str]]:
    """Room and name of each public class and function of these rooms; constants need no example."""
    found = []
    for room in ROOMS:
        module = importlib.import_module(f"kvseg_monai.{room}")
        found += [(room, name) for name in sorted(module.__all__) if callable(getattr(module, name))]
    return found


@pytest.mark.parametrize(("room", "name"), public_names())
def test_the_example_prints_what_it_says(room, name):
    thing = getattr(importlib.import_module(f"kvseg_monai.{room}"), name)
    module = inspect.getmodule(thing)
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(thing), vars(module).copy(), name, module.__file__, None
    )
    assert example.examples, f"kvseg_monai.{room}.{name} has no example"
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)
