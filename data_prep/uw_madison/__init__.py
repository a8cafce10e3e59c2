"""The raw UW-Madison GI Tract data: PNG slices and run-length labels."""
