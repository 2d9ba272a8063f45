"""Models of ``omni.ui`` and the menus: widgets that remember what they were given and where they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class _Widget:
    """Any widget: its arguments, its children, and what a user can do with it."""

    def __init__(self, *args, **kwargs):
        self._args, self._kwargs, self._children, self._destroyed = args, kwargs, [], False
        self._world.widgets.append(self)
        opened = self._world.__dict__.setdefault("open_widgets", [])
        if opened:
            opened[-1]._children.append(self)

    def __enter__(self):
        self._world.__dict__.setdefault("open_widgets", []).append(self)
        return self

    def __exit__(self, *_):
        self._world.open_widgets.pop()

    def _get(self, name, default=None):
        return self._kwargs.get(name, self._args[0] if self._args and default is None else default)

    def _put(self, name, value):
        self._kwargs[name] = value

    text = property(lambda self: self._get("text"), lambda self, value: self._put("text", value))
    enabled = property(lambda self: self._kwargs.get("enabled", True), lambda self, value: self._put("enabled", value))
    model = property(lambda self: self._get("model"), lambda self, value: self._put("model", value))

    def _click(self):
        """What a user's click does."""
        return self._kwargs["clicked_fn"]()


class _Window(_Widget):
    def __init__(self, *args, **kwargs):
        import omni.ui

        _Widget.__init__(self, *args, **kwargs)
        self._frame, self._visibility_fn = None, None
        self._visible = kwargs.get("visible", True)
        self._frame_kind = omni.ui.Frame

    def _get_frame(self):
        if self._frame is None:
            self._frame = self._frame_kind()
        return self._frame

    frame = property(_get_frame)

    def _set_visible(self, value):
        changed, self._visible = self._visible != value, value
        if changed and self._visibility_fn is not None:
            self._visibility_fn(value)

    visible = property(lambda self: self._visible, _set_visible)

    def set_visibility_changed_fn(self, function):
        self._visibility_fn = function

    def destroy(self):
        self._destroyed = True
        waiting = [self, *([self._frame] if self._frame is not None else ())]
        while waiting:
            widget = waiting.pop()
            waiting += widget._children
            if widget in self._world.widgets:
                self._world.widgets.remove(widget)


class _Model(_Widget):
    def __init__(self, value=0.0, **kwargs):
        _Widget.__init__(self, value, **kwargs)
        self._value = value

    def set_value(self, value):
        self._value = value

    def get_value_as_float(self):
        return float(self._value)

    def get_value_as_string(self):
        return str(self._value)

    def get_value_as_int(self):
        return int(self._value)

    def get_value_as_bool(self):
        return bool(self._value)


class _Frame(_Widget):
    def clear(self):
        """Takes away what is inside, with everything below it."""
        waiting = list(self._children)
        while waiting:
            child = waiting.pop()
            waiting += child._children
            if child in self._world.widgets:
                self._world.widgets.remove(child)
        self._children.clear()


class _ComboBox(_Widget):
    """Its model's current item has its number as value; ``_choose`` is what a user does."""

    def _get_model(self):
        import omni.ui

        if "_model" not in self.__dict__:
            value = omni.ui.AbstractValueModel.__new__(omni.ui.AbstractValueModel)
            value._value = self._args[0]
            self._model = omni.ui.AbstractItemModel.__new__(omni.ui.AbstractItemModel)
            self._model._current = value
        return self._model

    model = property(_get_model)

    def _choose(self, text):
        self._get_model()._current._value = list(self._args[1:]).index(text)


class _ItemModel:
    def get_item_value_model(self, item=None, column_id=0):
        return self._current


class _ValueModel:
    def get_value_as_int(self):
        return int(self._value)


class _StringField(_Widget):
    """Has a model of its own."""

    def _get_model(self):
        import omni.ui

        if "_own_model" not in self.__dict__:
            self._own_model = omni.ui.SimpleStringModel("")
            self._world.widgets.remove(self._own_model)  # a part of the field, not a widget beside it
        return self._own_model

    model = property(_get_model)


class _Workspace:
    def get_window(world, title):
        windows = [widget for widget in world.widgets if type(widget).__name__ == "Window"]
        return next((window for window in windows if window._get("title") == title), None)

    def set_show_window_fn(world, title, function):
        functions = world.__dict__.setdefault("show_window_functions", {})
        functions.pop(title, None)
        if function is not None:
            functions[title] = function


class _Plot(_Widget):
    def set_data(self, *values):
        self._values = values


class _ImageProvider(_Widget):
    def set_bytes_data_from_gpu(self, pointer, size):
        self._image = (int(pointer), tuple(size))

    def set_bytes_data(self, data, size):
        assert len(data) == 4 * size[0] * size[1]
        self._image = (bytes(data), tuple(size))


class _MenuItem(_Widget):
    pass


def _add_menu(world, menu, name, *args, **kwargs):
    world.menus.setdefault(name, []).extend(menu)
    return menu


def _remove_menu(world, menu, name, *args, **kwargs):
    world.menus[name] = [item for item in world.menus.get(name, ()) if item not in menu]


class _Widgets:
    """Every class of ``omni.ui`` that has no model of its own is a plain widget."""

    Window, Plot, ByteImageProvider = _Window, _Plot, _ImageProvider
    Frame, ComboBox, StringField, Workspace = _Frame, _ComboBox, _StringField, _Workspace
    AbstractItemModel, AbstractValueModel = _ItemModel, _ValueModel
    SimpleFloatModel = SimpleStringModel = _Model

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return _Widget


MODELS: dict[str, Any] = {
    "omni.ui": _Widgets(),
    "omni.kit.menu.utils": SimpleNamespace(
        MenuItemDescription=_MenuItem,
        add_menu_items=_add_menu,
        remove_menu_items=_remove_menu,
        refresh_menu_items=lambda world, *_, **__: None,
    ),
    "isaacsim.gui.components.menu": SimpleNamespace(
        make_menu_item_description=lambda world, ext_id, name, function, action_name="": SimpleNamespace(
            name=name, click=function
        )
    ),
}
