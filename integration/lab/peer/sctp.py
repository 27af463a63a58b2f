"""SCTP by hand: a half handshake through raw sockets, for kernels that have no SCTP of their own.

A client sends INIT, a listener answers INIT ACK; the state cookie carries the answer's text. That is all that is needed
to see where NAT sends an association and which source it shows (RFC 9260, 3.3.2 and 3.3.3). The checksum is CRC32c, and
connection tracking verifies it.
"""

from __future__ import annotations

import functools
import secrets
import socket
import struct

INIT, INIT_ACK, STATE_COOKIE = 1, 2, 7
_HEADER = struct.Struct("!HHII")
_INIT = struct.Struct("!BBHIIHHI")
_PARAMETER = struct.Struct("!HH")


@functools.cache
def is_native() -> bool:
    """Tell whether this kernel has SCTP sockets; asking loads the module where there is one."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def _checksum(packet: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in packet:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    # The one field of SCTP in little-endian order (RFC 9260, appendix A): swap it for the "!I" of the header.
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little"), "big")


def _packet(source_port: int, port: int, tag: int, chunk: bytes) -> bytes:
    bare = _HEADER.pack(source_port, port, tag, 0) + chunk
    return _HEADER.pack(source_port, port, tag, _checksum(bare)) + chunk


def _chunk(kind: int, cookie: bytes = b"") -> bytes:
    parameter = b""
    if cookie:
        parameter = _PARAMETER.pack(STATE_COOKIE, _PARAMETER.size + len(cookie)) + cookie
    length = _INIT.size + len(parameter)
    chunk = _INIT.pack(kind, 0, length, secrets.randbits(32) | 1, 65536, 1, 1, secrets.randbits(32)) + parameter
    return chunk + bytes(-len(chunk) % 4)


def _payload(family: int, packet: bytes) -> bytes:
    """Cut off the IP header, which raw sockets show for IPv4 only."""
    return packet[(packet[0] & 0x0F) * 4 :] if family == socket.AF_INET else packet


class Listener:
    """Answers every INIT to `port` with a line about who asked; blocks in `serve`."""

    def __init__(self, family: int, port: int) -> None:
        self._family = family
        self._port = port
        self._socket = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)

    def serve(self, line: bytes) -> None:
        """Answer until the process ends; `line` has the places `{ip}` and `{port}`."""
        while True:
            packet, sender = self._socket.recvfrom(65535)
            payload = _payload(self._family, packet)
            if len(payload) < _HEADER.size + _INIT.size:
                continue
            source_port, port, _, _ = _HEADER.unpack_from(payload)
            kind, _, _, tag, *_ = _INIT.unpack_from(payload, _HEADER.size)
            if kind != INIT or port != self._port:
                continue
            text = line.decode().format(ip=sender[0], port=source_port).encode()
            self._socket.sendto(_packet(port, source_port, tag, _chunk(INIT_ACK, text)), (sender[0], 0))


def ask(family: int, address: str, port: int, *, source: str | None, source_port: int, timeout_s: float) -> str:
    """Send one INIT and return the text of the answer's cookie. Raises OSError as a connecting socket does."""
    mine = source_port or 32768 + secrets.randbelow(28000)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw:
        if source:
            raw.bind((source, 0))
        raw.settimeout(timeout_s)
        raw.connect((address, 0))
        raw.send(_packet(mine, port, 0, _chunk(INIT)))
        while True:
            payload = _payload(family, raw.recv(65535))
            theirs, to, _, _ = _HEADER.unpack_from(payload)
            if (theirs, to) == (port, mine) and payload[_HEADER.size] == INIT_ACK:
                start = _HEADER.size + _INIT.size
                _, length = _PARAMETER.unpack_from(payload, start)
                return payload[start + _PARAMETER.size : start + length].decode()
