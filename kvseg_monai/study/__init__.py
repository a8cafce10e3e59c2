"""Matched arms: the same data, split, order of samples, schedule and seed; only the attention differs.

``python -m kvseg_monai.study run STUDY.yaml`` trains and scores every arm through its bundle,
``python -m kvseg_monai.study report STUDY.yaml`` compares them. An arm is a net, an attention kind and a seed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
