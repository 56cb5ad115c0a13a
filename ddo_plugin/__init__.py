"""Direct Discriminative Optimization as a plugin for EDM, EDM2 and VAR.

What a plugin may import stands in `__init__.pyi`; each name is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
