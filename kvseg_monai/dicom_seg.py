"""Write a label map as DICOM SEG: ``python -m kvseg_monai.dicom_seg``."""

from kvseg_monai.errors import run_command
from kvseg_monai.transforms.dicom_seg import main

if __name__ == "__main__":
    run_command(main)
