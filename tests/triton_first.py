"""TensorFlow and Triton in one process: each brings an LLVM, and Triton's must be loaded first, or the process aborts.

Triton comes with PyTorch: the first optimizer of a process loads it.
"""

import sys
from importlib import import_module, util
from importlib.abc import MetaPathFinder


class TritonFirst(MetaPathFinder):
    """Loads Triton right before TensorFlow; finds nothing itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "tensorflow" and "triton" not in sys.modules and util.find_spec("triton") is not None:
            import_module("triton")


def install():
    """Watch the imports of this process, from now on."""
    if not any(isinstance(one, TritonFirst) for one in sys.meta_path):
        sys.meta_path.insert(0, TritonFirst())
