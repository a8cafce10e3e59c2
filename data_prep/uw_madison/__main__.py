"""Command line: ``python -m data_prep.uw_madison``."""

from data_prep.uw_madison.source import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
