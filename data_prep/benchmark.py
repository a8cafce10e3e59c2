"""Time preparing against a plain read and write: ``python -m data_prep.benchmark``."""

from data_prep.common.benchmark import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
