"""Stand-in for scikit-image where it cannot be installed: the one function that kvseg_monai calls."""
