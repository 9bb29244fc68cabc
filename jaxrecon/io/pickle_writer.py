"""Pickles written opcode by opcode, so that they may name classes that are not installed."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxrecon.io.pickle_machine import Global, Recipe


@dataclass(frozen=True)
class PersistentId:
    """An object that is stored outside the pickle, by what refers to it."""

    value: tuple[Any, ...]


def dump(tree: Any, describe: Callable[[Any], Any]) -> bytes:
    """A protocol 2 pickle of nested dict, list, tuple, str, bytes, numbers, bool and None.

    Args:
      tree: what to write.
      describe: what to write for any other leaf: one of the above, a `Recipe` (a call), a `Global`
        or a `PersistentId`.

    Raises:
      TypeError: a leaf that `describe` makes nothing of.
    """
    out = bytearray(b"\x80\x02")
    _write(out, tree, describe)
    return bytes(out + b".")


def _write(out: bytearray, value: Any, describe: Callable[[Any], Any]) -> None:
    match value:
        case None:
            out += b"N"
        case bool():
            out += b"\x88" if value else b"\x89"
        case Global(module, name):
            out += f"c{module}\n{name}\n".encode()
        case PersistentId(inner):
            _write(out, inner, describe)
            out += b"Q"
        case Recipe():
            _write(out, value.made_of, describe)
            _write(out, value.args, describe)
            out += b"R"
        case _ if type(value) is int:
            if -(2**31) <= value < 2**31:
                out += b"J" + struct.pack("<i", value)
            else:
                raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
                out += b"\x8b" + struct.pack("<i", len(raw)) + raw
        case _ if type(value) is float:
            out += b"G" + struct.pack(">d", value)
        case str():
            raw = value.encode("utf-8", "surrogatepass")
            out += b"X" + struct.pack("<I", len(raw)) + raw
        case bytes():  # protocol 2 has none: text and a call that encodes it
            text = value.decode("latin-1")
            _write(out, Recipe(Global("_codecs", "encode"), (text, "latin1")), describe)
        case tuple():
            out += b"("
            for member in value:
                _write(out, member, describe)
            out += b"t"
        case list():
            out += b"]("
            for member in value:
                _write(out, member, describe)
            out += b"e"
        case dict():
            out += b"}("
            for key, member in value.items():
                _write(out, key, describe)
                _write(out, member, describe)
            out += b"u"
        case _:
            described = describe(value)
            if type(described) is type(value) and described is value:
                raise TypeError(f"values of {type(value).__name__} cannot be written")
            _write(out, described, describe)
