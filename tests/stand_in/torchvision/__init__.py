"""Stands in for torchvision where PyTorch is a CPU build and torchvision's is not to be had; used in tests alone.

The two must be of one build, else importing torchvision fails. MONAI Label needs it for pictures of its own trainers,
which the bundles do not use, so these names are enough to serve, infer and train.
"""
