"""Settings chosen from the data: ``python -m kvseg_monai.plan DATA`` writes ``plan.json``, which training reads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
