"""Clients that ask again and again until a file appears, and count what fails. Prints one JSON object at the end.

Run as `python load.py STOP_FILE ADDRESS PAUSE_S HOST=PREFIX...`: each host is asked by three clients, over connections
that are kept, over a new one each time, and over TLS. An answer is right if it has status 200 and comes from a pod
whose address begins so. A kept connection that is found closed before a byte of the answer is opened anew and the
request sent again, as RFC 9112 (9.3.1) has it; such are counted apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections import Counter
from pathlib import Path

_KEPT = 200
_TIMEOUT_S = 10

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Stale(Exception):  # noqa: N818 - no failure
    """A kept connection was closed before the answer began."""


class Load:
    """All clients, and what came of their requests."""

    def __init__(self, stop_file: str, address: str, pause_s: float) -> None:
        self.stop_file = Path(stop_file)
        self.address = address
        self.pause_s = pause_s
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, object]] = []
        self.slowest_s = 0.0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    async def client(self, host: str, prefix: str, kind: str) -> None:
        """Ask one host until the end."""
        streams: Streams | None = None
        used = 0
        while not self.stop_file.exists():
            start = time.monotonic()
            try:
                for _ in range(2):
                    try:
                        fresh = streams is None
                        streams = streams or await self._open(host, kind)
                        reported = await asyncio.wait_for(self._ask(streams, host, kind, fresh=fresh), _TIMEOUT_S)
                        break
                    except Stale:
                        self.counts["sent again"] += 1
                        streams = await self._close(streams)
                self._check(reported, prefix)
                self.counts[kind] += 1
                used += 1
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                self.counts["failed"] += 1
                self.failures.append({"at": time.time(), "host": host, "kind": kind, "why": repr(error)[:300]})
                streams = await self._close(streams)
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)
            if kind != "kept" or used % _KEPT == 0:
                streams = await self._close(streams)
            await asyncio.sleep(self.pause_s)
        await self._close(streams)

    def _check(self, reported: str, prefix: str) -> None:
        if not reported.startswith(prefix):
            raise ValueError(f"answered by {reported}")

    async def _open(self, host: str, kind: str) -> Streams:
        if kind == "tls":
            return await asyncio.open_connection(self.address, 443, ssl=self.tls, server_hostname=host)
        return await asyncio.open_connection(self.address, 80)

    async def _close(self, streams: Streams | None) -> None:
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _ask(self, streams: Streams, host: str, kind: str, *, fresh: bool) -> str:
        reader, writer = streams
        keep = "keep-alive" if kind == "kept" else "close"
        try:
            writer.write(f"GET /load HTTP/1.1\r\nHost: {host}\r\nConnection: {keep}\r\n\r\n".encode())
            await writer.drain()
            first = await reader.readline()
        except ConnectionError as error:
            if fresh:
                raise
            raise Stale from error
        if not first and not fresh:
            raise Stale
        rest = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in first:
            raise ValueError(f"{first!r}")
        length = next(line for line in rest.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
        return str(body["address"])


async def main(stop_file: str, address: str, pause_s: str, hosts: list[str]) -> None:
    """Run all clients and print what came of it."""
    load = Load(stop_file, address, float(pause_s))
    start = time.monotonic()
    pairs = [host.split("=") for host in hosts]
    await asyncio.gather(*(load.client(*pair, kind) for pair in pairs for kind in ("kept", "new", "tls")))
    given = {
        "counts": load.counts,
        "failures": load.failures[:50],
        "slowest_s": load.slowest_s,
        "elapsed_s": time.monotonic() - start,
    }
    print(json.dumps(given))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], sys.argv[4:]))
