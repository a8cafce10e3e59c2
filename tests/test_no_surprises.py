"""Nothing happens at import: warning filters, logging, hooks, signal handlers and the environment stay as they are."""

import json
import subprocess
import sys

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

OURS = ("kvseg_monai", "data_prep")
if len(sys.argv) > 1:  # the libraries alone
    load(json.loads(sys.argv[1]))
    print(json.dumps(state()))
    sys.exit()
packages = [importlib.import_module(name) for name in OURS]
ours = [found.name for package in packages for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
load(ours)
libraries = [name for name in sys.modules if name.partition(".")[0] not in (*OURS, "__main__")]
print(json.dumps({"ours": [name for name in ours if name in sys.modules], "libraries": libraries, "state": state()}))
"""


def run(*arguments: str) -> dict:
    line = [sys.executable, "-c", PROGRAM, *arguments]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def test_importing_every_module_changes_no_more_than_its_libraries_do():
    """Compared with a process that imports the same libraries, in the same order, and nothing of ours."""
    found = run()
    assert len(found["ours"]) > 120
    alone = run(json.dumps(found["libraries"]))
    levels, of_libraries = found["state"].pop("levels"), alone.pop("levels")
    assert found["state"] == alone
    untouched = [0, False, 0]  # loggers of our own modules, and such as are made later
    changed = {name: level for name, level in levels.items() if level != of_libraries.get(name, untouched)}
    assert changed == {}
