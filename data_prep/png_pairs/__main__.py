"""Command line: ``python -m data_prep.png_pairs``."""

from data_prep.png_pairs.source import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
