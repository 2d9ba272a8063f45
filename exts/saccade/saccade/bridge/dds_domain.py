"""A DDS domain of this process, shared by the nodes in it: its settings count once."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from saccade.errors import ConfigurationError


class SharedDomain:
    """One domain, open as long as a node of this process is in it."""

    _open: ClassVar[dict[int, SharedDomain]] = {}
    _lock = threading.Lock()

    def __init__(self, number: int, settings: str | None) -> None:
        self.number = number
        self.settings = settings
        self.users = 0
        self._entity: Any = None
        if settings is not None:
            from cyclonedds.domain import Domain

            self._entity = Domain(number, settings)

    @classmethod
    def open(cls, number: int, settings: str | None) -> SharedDomain:
        """Returns the domain, opened with ``settings`` (XML; ``None`` = as the environment says) if nobody has yet.

        Raises:
            ConfigurationError: It is open with other settings.
        """
        with cls._lock:
            domain = cls._open.get(number)
            if domain is None:
                domain = cls._open[number] = SharedDomain(number, settings)
            elif domain.settings != settings:
                raise ConfigurationError(
                    f"ros2: domain {number} is already open in this process with other network settings: "
                    f"use the same ros2.network and ros2.fragment_size, or another ros2.domain"
                )
            domain.users += 1
            return domain

    def close(self) -> None:
        """Gives the domain up; the last user's call closes it."""
        with self._lock:
            self.users -= 1
            if self.users == 0:
                del self._open[self.number]
                if self._entity is not None:
                    self._entity._delete(self._entity._ref)
