"""Draw the curves of several trainings: ``python -m kvseg_monai.curves``."""

from kvseg_monai.errors import run_command
from kvseg_monai.report.curves import main

if __name__ == "__main__":
    run_command(main)
