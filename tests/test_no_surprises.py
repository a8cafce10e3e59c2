"""Nothing happens at import: warning filters, logging, hooks, signal handlers and the environment stay as they are."""

import ast
import json
import subprocess
import sys

from support import ROOT

OURS = ("kvseg_monai", "data_prep")
PROGRAM = """
import importlib, json, logging, os, pkgutil, signal, sys, warnings

def state():
    loggers = {name: found for name, found in logging.root.manager.loggerDict.items() if hasattr(found, "level")}
    return {
        "filters": [str(filter) for filter in warnings.filters],
        "levels": {"": (logging.root.level, logging.root.disabled, len(logging.root.handlers)), **{
            name: (found.level, found.disabled, len(found.handlers)) for name, found in loggers.items()
        }},
        "excepthook": repr(sys.excepthook),
        "signals": {int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "environ": dict(os.environ),
    }

def load(names):
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if error.name and error.name.partition(".")[0] in OURS:
                raise

OURS, libraries = json.loads(sys.argv[1])
load(libraries)
before = state()
packages = [importlib.import_module(name) for name in OURS]
ours = [found.name for package in packages for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
load(ours)
print(json.dumps({"ours": [name for name in ours if name in sys.modules], "before": before, "after": state()}))
"""


def libraries() -> list[str]:
    """Modules of others that ours import when they are imported; names that are no module are among them."""
    names: dict[str, None] = {}
    for path in (path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                names |= dict.fromkeys(name for node in ast.walk(statement) for name in imported(node))
    return [name for name in names if name.partition(".")[0] not in OURS]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def test_importing_every_module_changes_no_more_than_its_libraries_do():
    """In one process: first the libraries alone, then all modules of ours."""
    line = [sys.executable, "-c", PROGRAM, json.dumps([OURS, libraries()])]
    found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert len(found["ours"]) > 120
    levels, of_libraries = found["after"].pop("levels"), found["before"].pop("levels")
    assert found["after"] == found["before"]
    untouched = [0, False, 0]  # loggers of our own modules, and such as are made later
    changed = {name: level for name, level in levels.items() if level != of_libraries.get(name, untouched)}
    assert changed == {}
