"""Command line: ``python -m data_prep.dicom``."""

from data_prep.dicom.source import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
