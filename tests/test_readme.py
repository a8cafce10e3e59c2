"""The README's plain commands are those of the Makefile."""

import shutil
import subprocess

import pytest
from support import ROOT


def planned(target: str) -> list[str]:
    """What make would run for a target in an empty checkout, without the environment's folder."""
    line = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    text = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", "")
    commands = (" ".join(command.split()) for command in text.splitlines())
    return [command.removeprefix(".venv/bin/") for command in commands if command.startswith(".venv/bin/python")]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_readme_says_what_make_runs():
    readme = [" ".join(line.split()) for line in (ROOT / "README.md").read_text().splitlines()]
    commands = [command.replace("--quiet ", "") for command in planned("demo") + planned("test")]
    assert len(commands) >= 9
    assert [command for command in commands if command not in readme] == []
