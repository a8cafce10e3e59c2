"""Folders of PNG slices and masks."""
