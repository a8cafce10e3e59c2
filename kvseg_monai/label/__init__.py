"""The bundles in MONAI Label: an annotation server for 3D Slicer and OHIF, in an environment of its own.

``python -m kvseg_monai.label`` installs bundles and weights and starts the server. What the server adds to MONAI
Label's app ``monaibundle`` is in :mod:`kvseg_monai.label.app`, the only module that needs MONAI Label.
"""
