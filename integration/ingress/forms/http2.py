"""A request over HTTP/2, sent by curl from the network namespace of the thread that calls."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def ask(
    where: tuple[str, int], name: str, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    """Return status, headers and body of the answer.

    Raises:
        ConnectionError: There is none.
    """
    address, port = where
    argv = ["curl", "-ski", "--http2", "--max-time", "15", "--connect-to", f"::{address}:{port}"]
    argv += ["--path-as-is", "--request-target", target, "-X", method, "-H", "Expect:", "-H", "Accept:"]
    argv += [f"-H{key}: {value}" for key, value in headers.items()]
    if method == "HEAD":
        argv += ["--head"]
    if body:
        argv += ["--data-binary", "@-", "-H", "Content-Type:"]
    done = subprocess.run([*argv, f"https://{name or address}/"], input=body, capture_output=True, check=False)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/2 "):
        raise ConnectionError(f"curl ends with {done.returncode} and {first!r}")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), [(key, value.strip()) for key, _, value in pairs], content
