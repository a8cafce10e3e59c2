"""Turn each source of MR slices into the one layout that the bundles read: NIfTI volumes and a ``datalist.json``."""
