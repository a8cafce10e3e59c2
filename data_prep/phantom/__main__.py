"""Command line: ``python -m data_prep.phantom``."""

from data_prep.phantom.write import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
