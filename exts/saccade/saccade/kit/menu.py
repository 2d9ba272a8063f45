"""The menu item that shows and hides the window, where the application has menus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MENU = "Tools"
"""Where Isaac Sim 5 and 6 have their own tools' windows."""


class Menu:
    """One item in the application's menu; none where there are no menus.

    Args:
        name: Its text.
        toggle: What it does.
    """

    def __init__(self, name: str, toggle: Callable[[], None]) -> None:
        self._items: list[Any] = []
        try:
            import omni.kit.menu.utils as menus
        except ImportError:
            return
        self._items = [menus.MenuItemDescription(name=name, onclick_fn=lambda *_: toggle())]
        menus.add_menu_items(self._items, MENU)

    def remove(self) -> None:
        """Takes the item away; safe to call twice."""
        if self._items:
            import omni.kit.menu.utils as menus

            menus.remove_menu_items(self._items, MENU)
            self._items = []
