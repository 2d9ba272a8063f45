"""Saccade: simulation-in-the-loop validation of humanoid perception.

Importing this package imports nothing heavy: every simulator, engine and plotting library is imported by the
module that needs it, when it needs it.
"""

__version__ = "0.1.0"
