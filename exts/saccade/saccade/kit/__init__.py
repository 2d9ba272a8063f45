"""Saccade as an extension of Isaac Sim: Kit instantiates the one class that it finds here."""

from saccade.kit.extension import SaccadeExtension, started

__all__ = ["SaccadeExtension", "started"]
