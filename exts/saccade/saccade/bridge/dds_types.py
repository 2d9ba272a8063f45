"""ROS 2 message types as Cyclone DDS declares them: names and layout only, the bytes come ready from rosbags."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from saccade.bridge import names

if TYPE_CHECKING:
    from rosbags.interfaces import Typestore

SERTYPE_OPERATIONS = 14
"""Pointers in Cyclone DDS 11's ``struct ddsi_sertype_ops``; the first is its version."""
TYPE_INFORMATION = 10
"""Which of them gives the XTypes type information."""

_hidden: list[Any] = []
"""Changed operation tables: the library keeps pointers to them for as long as the process lives."""


def idl_type(type_name: str, types: Typestore, made: dict[str, type] | None = None) -> type:
    """Returns the IDL class of ``package/msg/Type`` with ROS 2's type name.

    Args:
        type_name: Which.
        types: Definitions.
        made: Classes made so far by type name; filled further.
    """
    from cyclonedds.idl import make_idl_struct
    from cyclonedds.idl import types as idl
    from rosbags.interfaces import Nodetype

    made = {} if made is None else made
    if type_name in made:
        return made[type_name]
    # A byte and a char are one octet on the wire; IDL would call the second a character.
    scalars = {
        **{name: getattr(idl, name) for name in ("int8", "int16", "int32", "int64", "float32", "float64")},
        **{name: getattr(idl, name) for name in ("uint8", "uint16", "uint32", "uint64")},
        "bool": bool,
        "byte": idl.uint8,
        "char": idl.uint8,
        "octet": idl.uint8,
        "string": str,
    }

    def described(field: Any) -> Any:
        kind, content = field
        if kind == Nodetype.BASE:
            return scalars[content[0]]
        if kind == Nodetype.NAME:
            return idl_type(content, types, made)
        element, count = content
        return idl.array[described(element), count] if kind == Nodetype.ARRAY else idl.sequence[described(element)]

    _, fields = types.fielddefs[type_name]
    members = {name: described(field) for name, field in fields}
    made[type_name] = make_idl_struct(type_name.rsplit("/", 1)[1], names.dds_type(type_name), members)
    return made[type_name]


def hide_type_information(topic: Any) -> bool:
    """Stops the endpoints of a topic from announcing XTypes type information, which ROS 2 does not announce either.

    With it, older Cyclone DDS in other processes never matches and can crash. The library has no setting for it, so
    this replaces one entry of the type's private table, after checking that the table is the one that is known.

    Returns:
        Whether it was done; where not, the type information stays announced.
    """
    from cyclonedds.internal import DDS

    library = DDS._dll_handle
    try:
        sertype_of = library.dds_get_entity_sertype
        known_version = ctypes.cast(library.ddsi_sertype_v0, ctypes.c_void_p).value
    except AttributeError:
        return False
    sertype_of.argtypes = [ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)]
    sertype_of.restype = ctypes.c_int32
    sertype = ctypes.c_void_p()
    if sertype_of(topic._ref, ctypes.byref(sertype)) != 0 or not sertype.value:
        return False
    table = ctypes.c_void_p * SERTYPE_OPERATIONS
    slot = ctypes.c_void_p.from_address(sertype.value)
    if slot.value is None:
        return False
    operations = table.from_address(slot.value)
    if operations[0] != known_version:
        return False
    changed = table(*operations)
    changed[TYPE_INFORMATION] = None
    _hidden.append(changed)
    slot.value = ctypes.addressof(changed)
    return True
