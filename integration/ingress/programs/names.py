"""A DNS server that knows a few names and denies all others. Run as `python names.py ADDRESS NAME=ADDRESS...`."""

from __future__ import annotations

import socket
import struct
import sys

_A, _NXDOMAIN = 1, 3


def answer(query: bytes, names: dict[str, str]) -> bytes:
    """Answer one query: an address for type A of a known name, nothing for its other types, else no such domain."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    question = query[12 : at + 5]
    (kind,) = struct.unpack_from("!H", question, len(question) - 4)
    name = ".".join(labels).lower()
    code = 0 if name in names else _NXDOMAIN
    records = []
    if name in names and kind == _A:
        records.append(b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 5, 4) + socket.inet_aton(names[name]))
    return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + b"".join(records)


def main(address: str, names: dict[str, str]) -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind((address, 53))
        while True:
            query, asker = door.recvfrom(4096)
            door.sendto(answer(query, names), asker)


if __name__ == "__main__":
    main(sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:]))
