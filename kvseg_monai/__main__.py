"""The command ``kvseg``: ``python -m kvseg_monai``."""

from kvseg_monai.cli.main import main

if __name__ == "__main__":
    main()
