"""DICOM MR series, and DICOM SEG objects as their labels."""
