"""Pack a bundle and trained weights into one zip: ``python -m kvseg_monai.pack``."""

from kvseg_monai.bundle.pack import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
