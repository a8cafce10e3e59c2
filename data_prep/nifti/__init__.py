"""Folders of NIfTI images and masks."""
