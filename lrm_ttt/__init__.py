"""Reconstruct a scene from posed images by test-time training: fast weights read the views, Gaussians come out."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a checkout kernels/, train/, eval/ and configs/ stand beside this package, in a wheel they are inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / ".lrm-ttt-checkout").is_file():
    __path__.append(str(_root))
