"""Attributes of nf_tables messages: how their values are encoded and read. See linux/netfilter/nf_tables.h.

Numbers of attributes are in network byte order. Contents of registers, keys and data are bytes in the order that the
kernel's expressions produce, which for numbers of packets is network byte order, and for marks, states and interface
indexes that of the host.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.host.netlink.messages import NESTED, attribute, attributes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_LIST_ELEMENT: Final = 1
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct(">I")
_U32_ATTRIBUTE: Final = struct.Struct("=HH4s")

DROP, ACCEPT, CONTINUE, BREAK, JUMP, GOTO, RETURN = 0, 1, -1, -2, -3, -4, -5
"""The codes of verdicts."""


class KernelVerdict(NamedTuple):
    """A verdict as the kernel stores it.

    Attributes:
        code: One of the codes above.
        chain: The chain of a jump or goto.
    """

    code: int
    chain: str = ""


class Codec(NamedTuple):
    """How one kind of value is written and read."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    nests: bool = False


def number(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 32 bits."""
    return _U32_ATTRIBUTE.pack(8, kind, _U32.pack(value & 0xFFFFFFFF))


def number64(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 64 bits."""
    return attribute(kind, value.to_bytes(8, "big"))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a name, which ends with a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, content: bytes) -> bytes:
    """Return an attribute whose content is attributes."""
    return attribute(kind | NESTED, content)


def listed(kind: int, contents: list[bytes]) -> bytes:
    """Return an attribute with a list, each element of which is attributes."""
    return nested(kind, b"".join([nested(_LIST_ELEMENT, content) for content in contents]))


def value(content: bytes) -> bytes:
    """Return the content of an attribute for data that is a value."""
    return attribute(_VALUE, content)


def verdict(content: KernelVerdict) -> bytes:
    """Return the content of an attribute for data that is a verdict."""
    inside = number(_CODE, content.code)
    if content.chain:
        inside += text(_CHAIN, content.chain)
    return nested(_VERDICT, inside)


def data_of(content: bytes | KernelVerdict) -> bytes:
    """Return the content of an attribute for data."""
    return value(content) if isinstance(content, bytes) else verdict(content)


def read_text(content: bytes) -> str:
    """Return a name."""
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def read_number(content: bytes | None) -> int:
    """Return a number; 0 if the attribute is absent."""
    return int.from_bytes(content or b"", "big")


def read_data(content: bytes) -> bytes | KernelVerdict:
    """Return data: a value or a verdict.

    Raises:
        ValueError: The content is neither.
    """
    attributes = attributes_of(content)
    if _VALUE in attributes:
        return attributes[_VALUE]
    if _VERDICT not in attributes:
        raise ValueError("data without a value or verdict")
    inside = attributes_of(attributes[_VERDICT])
    code = int.from_bytes(inside[_CODE], "big", signed=True)
    return KernelVerdict(code, read_text(inside.get(_CHAIN, b"")))


def _read_register(content: bytes) -> int:
    """Return the number of a register of 32 bits; the kernel reports every fourth as 1 to 4, the verdict as 0."""
    register = read_number(content)
    return 4 + 4 * register if 1 <= register <= 4 else register


def read_list(content: bytes) -> Iterator[bytes]:
    """Yield the contents of the elements of a list."""
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, _ = _ATTRIBUTE.unpack_from(content, at)
        yield content[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


NUMBER: Final = Codec(lambda content: _U32.pack(content & 0xFFFFFFFF), read_number)
NUMBER64: Final = Codec(lambda content: content.to_bytes(8, "big"), read_number)
REGISTER: Final = Codec(NUMBER.encode, _read_register)
BYTE: Final = Codec(lambda content: bytes((content,)), read_number)
TEXT: Final = Codec(lambda content: content.encode() + b"\0", read_text)
DATA: Final = Codec(data_of, read_data, nests=True)
