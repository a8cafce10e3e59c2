"""Put weights in the place of a bundle's model: ``python -m kvseg_monai.deploy``."""

from kvseg_monai.bundle.deploy import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
