"""A name server in a thread, and messages of DNS (RFC 1035) by hand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from ipaddress import ip_address

from rulegen.host.proxy.resolver import dns

PORT = 10353


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def question(text: str, kind: int = dns.A, number: int = 7) -> bytes:
    return dns.HEADER.pack(number, 0x0100, 1, 0, 0, 0) + name(text) + struct.pack("!HH", kind, dns.IN)


def record(owner: bytes, kind: int, content: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, dns.IN, 60, len(content)) + content


class NameServer:
    """A name server of this process, over UDP and TCP, whose answers are a table that may change at any time.

    Attributes:
        table: The addresses of each name, of both families.
        is_short: Whether an answer over UDP has no room for any address.
    """

    def __init__(self, address: str = "127.0.0.53", port: int = 53) -> None:
        self.table: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.is_short = False
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self._tcp = socket.create_server((address, port))
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for link in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._udp.close()
        self._tcp.close()

    def _answer(self, message: bytes, *, is_short: bool) -> bytes:
        asked = dns.read_question(message)
        assert asked is not None
        self.asked.append(asked.name)
        result = [ip_address(text) for text in self.table.get(asked.name, ())]
        wanted = [each for each in result if each.version == (4 if asked.kind == dns.A else 6)]
        flags = 0x8180 | (0x0200 if is_short else 0) | (0 if asked.name in self.table else 3)
        kept = [] if is_short else wanted
        alias = record(b"\xc0\x0c", 5, name("alias.test"))
        records = b"".join(record(name("alias.test"), asked.kind, each.packed) for each in kept)
        return dns.HEADER.pack(asked.number, flags, 1, 1 + len(kept), 0, 0) + asked.wire + alias + records

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message, sender = self._udp.recvfrom(4096)
                if not message:
                    return
                self._udp.sendto(self._answer(message, is_short=self.is_short), sender)

    def _streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._tcp.accept()
                with link:
                    said = self._answer(link.recv(4096)[2:], is_short=False)
                    link.sendall(len(said).to_bytes(2, "big") + said)
