"""The engine kind `module`: a stage's PyTorch module behind the Engine interface, for work at build time.

Importing this package registers the kind; PyTorch is imported with its modules.
"""

from ...runtime.engines.registry import register_engine

KIND = "module"

register_engine(KIND, f"{__name__}.engine")
