"""Clients that want to keep a server busy, and what it costs the server."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

CLIENTS_OF_A_PORT = 64
START = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LINE = b"A: " + b"a" * 65_000 + b"\r\n"
LINES = 95


class EndlessHeads:
    """64 clients of each port send 95 fields of 65 KB and never the end; who is cut comes again."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = tuple(ports)
        self._clients: list[tuple[socket.socket, int]] = []
        self.began = 0

    def press(self) -> None:
        """Send as much as each server takes now, from as many clients as there are to be."""
        self._clients = [(client, port) for client, port in self._clients if _send(client, LINE)]
        for port in self._ports:
            there = sum(1 for _, of in self._clients if of == port)
            for _ in range(CLIENTS_OF_A_PORT - there):
                client = socket.create_connection(("127.0.0.1", port), timeout=60)
                client.settimeout(0)
                self.began += 1
                self._clients.append((client, port))
                _send(client, START)

    def close(self) -> None:
        for client, _ in self._clients:
            client.close()


def _send(client: socket.socket, piece: bytes) -> bool:
    """Send what can be sent; return whether the connection is still there."""
    try:
        for _ in range(LINES if piece is LINE else 1):
            client.send(piece)
    except BlockingIOError:
        return True
    except OSError:
        client.close()
        return False
    return True


def memory_kib(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status: VmRSS and VmHWM, the highest VmRSS so far, in KiB; Threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
