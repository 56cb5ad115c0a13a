"""Direct Discriminative Optimization as a plugin for EDM, EDM2 and VAR.

`__init__.pyi` lists the names that a plugin may import. Each name is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
