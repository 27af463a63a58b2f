"""A server that answers as no API server does: for ever, in tiny pieces, or with far more than anybody asked for.

It takes the requests of HTTP/1.1 clients and has a feed write the bytes of each answer, until the client goes away:

    with hostile(drip(0.1)) as url:
        read_cluster(kubeconfig_of(url, tmp_path))
"""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Feed = Callable[[str], Iterator[bytes]]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
KINDS = {
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "ingresses": "Ingress",
    "ingressclasses": "IngressClass",
    "nodes": "Node",
}


@contextmanager
def hostile(feed: Feed) -> Iterator[str]:
    """Serve at a URL, and end all connections in the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=50)
    taken: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with suppress(OSError):
            while head := _head(connection):
                for piece in feed(head.split()[1].decode()):
                    connection.sendall(piece)

    def accept() -> None:
        with suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                threading.Thread(target=answer, args=(taken[-1],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in (listener, *taken):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(65_536)
        if not more:
            return b""
        head += more
    return head


def kubeconfig_of(url: str, folder: Path) -> str:
    """Write a kubeconfig for a server and return its path."""
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(json.dumps(document))
    return str(path)


def kind_of(path: str) -> str:
    return KINDS[path.partition("?")[0].rpartition("/")[2]]


def page(path: str, items: str, token: str = "") -> bytes:
    """Return an answer with a page of a list."""
    metadata = {"resourceVersion": "5", **({"continue": token} if token else {})}
    text = f'{{"kind":"{kind_of(path)}List","metadata":{json.dumps(metadata)},"items":[{items}]}}'.encode()
    return OK + b"Content-Length: %d\r\n\r\n" % len(text) + text


def drip(every_s: float) -> Feed:
    """Answer with a byte every few moments, of a body that is long."""

    def feed(_: str) -> Iterator[bytes]:
        yield OK + b"Content-Length: 1000000\r\n\r\n{"
        while True:
            time.sleep(every_s)
            yield b" "

    return feed


def endless(begin: bytes, again: bytes) -> Feed:
    """Answer with the same bytes again and again."""
    return lambda _: itertools.chain([begin], itertools.repeat(again))


INTERIM = endless(b"", b"HTTP/1.1 100 Continue\r\nX-Padding: " + b"x" * 8000 + b"\r\n\r\n")
HEADERS = endless(OK, b"X-Padding: " + b"x" * 8000 + b"\r\n")
EXTENSIONS = endless(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\n \r\n")
TRAILERS = endless(CHUNKED + b"0\r\n", b"X-Padding: " + b"x" * 8000 + b"\r\n")
CHUNK_SIZE = endless(CHUNKED, b"0" * 8000)
SPACES = endless(CHUNKED, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
TINY_CHUNKS = endless(CHUNKED, b"1\r\n \r\n" * 10_000)


def bomb(_: str) -> Iterator[bytes]:
    """Answer with 1.5 GB of gzip that nobody asked for."""
    packed = gzip.compress(b" " * (64 << 20)) * 24
    yield OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    yield packed


def full_of(item: bytes, size: int) -> Feed:
    """Answer each list with one page of so many bytes, all of it the same small item; a watch is silent."""

    def feed(path: str) -> Iterator[bytes]:
        if "watch=1" in path:
            yield from _silence()
        count = size // (len(item) + 1)
        begin = f'{{"kind":"{kind_of(path)}List","metadata":{{"resourceVersion":"5"}},"items":['.encode()
        length = len(begin) + count * (len(item) + 1) - 1 + 2
        yield OK + b"Content-Length: %d\r\n\r\n" % length + begin
        for start in range(0, count, 10_000):
            block = (item + b",") * min(10_000, count - start)
            yield block if start + 10_000 < count else block[:-1]
        yield b"]}"

    return feed


def pages_of(item: Callable[[int], str], *, token: Callable[[int], str] = str, size: int = 500) -> Feed:
    """Answer each list with pages for ever."""
    numbers = itertools.count(1)

    def feed(path: str) -> Iterator[bytes]:
        if "watch=1" in path:
            yield from _silence()
        number = next(numbers)
        yield page(path, ",".join(item(number * size + each) for each in range(size)), token(number))

    return feed


def watch_of(line: Callable[[int], bytes]) -> Feed:
    """Answer each list with none, and each watch with lines for ever."""

    def feed(path: str) -> Iterator[bytes]:
        if "watch=1" not in path:
            yield page(path, "")
            return
        yield CHUNKED
        for number in itertools.count():
            content = line(number)
            yield b"%x\r\n%s\r\n" % (len(content), content)

    return feed


def _silence() -> Iterator[bytes]:
    yield CHUNKED
    while True:
        time.sleep(1)


def service(number: int, labels: int = 0) -> str:
    """Return a small Service with many small values."""
    each: dict[str, Any] = {
        "metadata": {
            "name": f"s{number}",
            "namespace": "shop",
            "resourceVersion": str(number + 10),
            "labels": {f"{label:x}": "" for label in range(labels)},
        },
        "spec": {
            "clusterIP": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    }
    return json.dumps(each, separators=(",", ":"))


def slice_of(number: int, endpoints: int = 200) -> str:
    """Return an EndpointSlice with as many small endpoints as bytes allow."""
    item = {
        "metadata": {"name": f"s{number}", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"10.0.{each >> 8}.{each & 255}"]} for each in range(1, endpoints + 1)],
    }
    return json.dumps(item, separators=(",", ":"))
