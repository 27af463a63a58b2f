"""The program that each host of the demo runs: a Pod answers HTTP, and each host sends requests on command.

    python -m rulegen.demo.peer NAME [PORT]

Commands come on standard input and results go to standard output, one JSON object a line. It ends with its input, so
it never outlives the demo; and its network namespace ends with it.
"""

from __future__ import annotations

import json
import signal
import ssl
import sys
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from http.client import HTTPResponse

TIMEOUT_S = 3
_PAUSE_S = 0.001
_ENOUGH_FAILURES = 5


class _PeerPage(BaseHTTPRequestHandler):
    """Says who answers, and nothing else."""

    def do_GET(self) -> None:
        body = f"{sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write no log: standard output is for results."""


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Place(NamedTuple):
    """The address of a page.

    Attributes:
        name: The host that is requested; empty for the address.
        trust: Path of the one certificate that is trusted, for HTTPS; empty for HTTP.
    """

    address: str
    port: int
    name: str = ""
    trust: str = ""


class Visitor:
    """Requests a page, each time over a new connection."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._tls = ssl.create_default_context(cafile=place.trust) if place.trust else None

    def visit(self) -> tuple[HTTPResponse, str]:
        """Return the answer, and the text in it.

        Raises:
            OSError: There is none, or not with a certificate that is trusted and for that name.
            HTTPException: It is none of HTTP.
        """
        place = self._place
        connection = HTTPConnection(place.address, place.port, timeout=TIMEOUT_S)
        try:
            connection.connect()
            if self._tls:
                connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=place.name or place.address)
            connection.request(
                "GET", "/", headers={"Connection": "close"} | ({"Host": place.name} if place.name else {})
            )
            answer = connection.getresponse()
            return answer, answer.read().decode("utf-8", "replace").strip()
        finally:
            connection.close()


class Asker:
    """Requests a page repeatedly, and counts the answers of each Pod."""

    def __init__(self, place: Place) -> None:
        self._visitor = Visitor(place)
        self._answered: Counter[str] = Counter()
        self._failures: list[str] = []
        self._failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def ask(self) -> None:
        """Send one request."""
        try:
            answer, text = self._visitor.visit()
        except (OSError, HTTPException) as error:
            self._fail(str(error) or type(error).__name__)
            return
        if answer.status == 200:
            self._answered[text] += 1
        else:
            self._fail(f"{answer.status} {answer.reason}")

    def start(self) -> None:
        """Start to send requests without a pause, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending requests."""
        self._stop.set()
        self._thread.join()

    def tally(self) -> dict[str, Any]:
        """Return the number of answers of each Pod, the number of failures, and the text of the first failure."""
        return {"answered": dict(self._answered), "failed": self._failed, "failures": self._failures}

    def _fail(self, how: str) -> None:
        self._failed += 1
        if len(self._failures) < _ENOUGH_FAILURES:
            self._failures.append(how)

    def _repeat(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            self.ask()


def look(place: Place) -> dict[str, Any]:
    """Return the response to one request: status, location, text, or the failure."""
    try:
        answer, text = Visitor(place).visit()
    except (OSError, HTTPException) as error:
        return {"status": 0, "location": "", "text": str(error) or type(error).__name__}
    return {"status": answer.status, "location": answer.getheader("Location", ""), "text": text}


def main() -> None:
    """Execute commands until standard input ends."""
    # The node's is the first process of its namespace, which inherits orphans: nginx's supervisor, for one.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if len(sys.argv) > 2:
        server = _Server(("", int(sys.argv[2])), _PeerPage)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _tell({"name": sys.argv[1]})
    asking: Asker | None = None
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "set", "parameters": dict(parameters)}:
                for path, value in parameters.items():
                    Path("/proc/sys", path).write_text(value)
                _tell({})
            case {"do": "look", "place": list(place)}:
                _tell(look(Place(*place)))
            case {"do": "ask", "place": list(place), "count": int(count)}:
                asker = Asker(Place(*place))
                for _ in range(count):
                    asker.ask()
                _tell(asker.tally())
            case {"do": "start", "place": list(place)}:
                asking = Asker(Place(*place))
                asking.start()
                _tell({})
            case {"do": "stop"} if asking:
                asking.stop()
                _tell(asking.tally())


def _tell(result: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
