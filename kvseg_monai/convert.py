"""Turn transformers into their Key-Value form: ``python -m kvseg_monai.convert``; the functions are re-exported."""

from kvseg_monai.conversion.convert import *  # noqa: F403
from kvseg_monai.conversion.convert import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
