"""A computed phantom in the layout of the UW-Madison GI Tract data."""
