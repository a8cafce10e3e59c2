"""Age of a command: that of a process that was started for one workflow, and of no other."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvseg_monai.utils.process_age import age_of_command


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="only Linux says when a process was started")
def test_the_age_of_a_command():
    begun = time.monotonic()
    code = "import time; from kvseg_monai.utils.process_age import age_of_command as age; time.sleep(0.3); print(age())"
    found = [
        float(subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, check=True).stdout)
        for more in (["monai.bundle", "run"], ["monai.bundles"])
    ]
    assert 0.25 < found[0] < time.monotonic() - begun
    assert found[1] == 0


def test_no_age_where_none_is_known(tmp_path):
    assert age_of_command() == 0  # of the tests' own process
    assert age_of_command(tmp_path) == 0
    (tmp_path / "cmdline").write_bytes(b"python\0-m\0monai.bundle\0run\0")
    (tmp_path / "stat").write_text("1 (python) R 2")
    assert age_of_command(tmp_path) == 0
