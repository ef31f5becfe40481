"""Serialised messages to objects with the same fields and back, without ROS."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from llmagent_ros.errors import StoreError
from llmagent_ros.messages import Message


@functools.lru_cache(maxsize=16)  # the bags of a run have the same definitions, and code is made of each
def _typestore(definitions: tuple[tuple[str, str], ...]) -> Typestore:
    types = get_typestore(Stores.EMPTY)
    for name, text in definitions:
        found = get_types_from_msg(text, name)
        types.register({key: value for key, value in found.items() if key not in types.fielddefs})
    return types


class Codec:
    """Decodes and encodes CDR by the definitions that a bag brings along.

    Args:
        definitions: "ros2msg" text of each type, with all that it is made of. origin: begins every error.

    Raises:
        StoreError: a definition cannot be read.
    """

    def __init__(self, definitions: Mapping[str, str], origin: str) -> None:
        self._origin = origin
        try:
            self._types = _typestore(tuple(sorted(definitions.items())))
        except (TypesysError, AssertionError, KeyError) as error:
            raise StoreError(f"{origin}: the definitions of its messages cannot be read: {error}") from error

    def decode(self, type_name: str, data: bytes) -> Message:
        """An object with the fields of the message.

        Raises:
            StoreError: the bytes are not a message of this type.
        """
        try:
            return self._types.deserialize_cdr(data, type_name)
        except Exception as error:  # whatever the generated code meets in bytes that are none
            raise StoreError(f"{self._origin}: not a {type_name}: {error!r}") from error

    def encode(self, type_name: str, message: Message) -> bytes:
        """The CDR of what `decode` has made."""
        return bytes(self._types.serialize_cdr(message, type_name))
