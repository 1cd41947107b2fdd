"""Helpers of the course *Transfer Learning in Neural Networks*.

Importing the package loads no deep-learning framework; each module loads
Keras only when a function that needs it is called.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tl-helpers")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
