"""Listeners that tell who asked them, and questions to them: TCP, UDP, SCTP; IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections import deque

import sctp

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def listen(name: str, protocol: str, family: int, address: str, port: int) -> None:
    """Start to answer on `address`:`port`; whoever asks after this returns is answered."""
    line = f"{name} {{ip}} {{port}} {port}\n"
    if protocol == "SCTP" and not sctp.is_native():
        raw = sctp.Listener(_FAMILIES[family], port)
        _start(raw.serve, line.encode())
        return
    server = _socket(protocol, family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == 6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, port))
    if protocol == "UDP":
        _start(_serve_datagrams, server, line)
        return
    server.listen(1024)
    _start(_serve_streams, server, line)


def _start(target: object, *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _socket(protocol: str, family: int) -> socket.socket:
    kinds = {
        "TCP": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        "UDP": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "SCTP": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
    }
    return socket.socket(_FAMILIES[family], *kinds[protocol])


def _serve_streams(server: socket.socket, line: str) -> None:
    while True:
        try:
            connection, sender = server.accept()
            with connection:
                connection.sendall(line.format(ip=sender[0], port=sender[1]).encode())
        except OSError:
            # The asker went away between connect and answer: its own report says so.
            continue


def _serve_datagrams(server: socket.socket, line: str) -> None:
    while True:
        try:
            _, sender = server.recvfrom(2048)
            server.sendto(line.format(ip=sender[0], port=sender[1]).encode(), sender)
        except OSError:
            # An ICMP error of an earlier answer, whose asker no longer listens.
            continue


def ask(
    protocol: str, address: str, port: int, *, source: str | None = None, source_port: int = 0, timeout_s: float = 5.0
) -> dict[str, object]:
    """Ask once, over a new socket, and tell what came of it.

    Returns:
        `outcome`: `answered`, `refused`, `unreachable`, `timeout`, `reset` or the name of another error;
        `text`: what was answered, else empty; `elapsed_s`.
    """
    started = time.monotonic()
    text = ""
    try:
        text = _exchange(protocol, address, port, source=source, source_port=source_port, timeout_s=timeout_s)
        outcome = "answered" if text else "empty"
    except TimeoutError:
        outcome = "timeout"
    except OSError as error:
        outcome = _OUTCOMES.get(error.errno or 0, errno.errorcode.get(error.errno or 0, str(error)))
    return {"outcome": outcome, "text": text, "elapsed_s": time.monotonic() - started}


_OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


def _exchange(protocol: str, address: str, port: int, *, source: str | None, source_port: int, timeout_s: float) -> str:
    family = 6 if ":" in address else 4
    if protocol == "SCTP" and not sctp.is_native():
        return sctp.ask(_FAMILIES[family], address, port, source=source, source_port=source_port, timeout_s=timeout_s)
    with _socket(protocol, family) as client:
        client.settimeout(timeout_s)
        if source or source_port:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((source or ("::" if family == 6 else "0.0.0.0"), source_port))
        client.connect((address, port))
        if protocol == "UDP":
            # A rule of this very host may stop it: whether it told so (ECONNREFUSED) or not is heard below.
            with contextlib.suppress(PermissionError):
                client.send(b"who\n")
        return client.recv(2048).decode()


class Repetition:
    """Asks again and again, `pause_s` after each answer, until told to stop; keeps counts, first and last failures."""

    def __init__(self, question: dict[str, object], pause_s: float) -> None:
        self._question = question
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._answered: dict[str, int] = {}
        self._failed: list[dict[str, object]] = []
        self._last_failed: deque[dict[str, object]] = deque(maxlen=20)
        self._failures = 0
        self._slowest_s = 0.0
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def _repeat(self) -> None:
        # Behind all that the tests wait for: this thread alone, as Linux counts niceness by thread.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        while not self._stop.is_set():
            answer = ask(**self._question)  # type: ignore[arg-type]
            self._slowest_s = max(self._slowest_s, float(str(answer["elapsed_s"])))
            if answer["outcome"] == "answered":
                name = str(answer["text"]).split()[0]
                self._answered[name] = self._answered.get(name, 0) + 1
            else:
                self._failures += 1
                failure = answer | {"at": time.time()}
                self._failed += [failure][: 20 - len(self._failed)]
                self._last_failed.append(failure)
            if self._pause_s:
                time.sleep(self._pause_s)

    def stop(self) -> dict[str, object]:
        """End after the question under way and report."""
        self._stop.set()
        self._thread.join()
        return self.report()

    def report(self) -> dict[str, object]:
        """Tell what came of the questions so far."""
        return {
            "answered": dict(self._answered),
            "failures": self._failures,
            "first_failures": list(self._failed),
            "last_failures": list(self._last_failed),
            "slowest_s": self._slowest_s,
        }
