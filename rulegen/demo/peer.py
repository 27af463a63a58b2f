"""The program that each host of the demo runs: it answers HTTP if it is a pod, and asks others when it is told to.

    python -m rulegen.demo.peer NAME [PORT]

Commands come on standard input and results go to standard output, one JSON object a line. It ends with its input, so
it never outlives the demo; and its network namespace ends with it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

TIMEOUT_S = 3
_PAUSE_S = 0.001
_ENOUGH_FAILURES = 5


class _Page(BaseHTTPRequestHandler):
    """Says who answers, and nothing else."""

    def do_GET(self) -> None:
        body = f"{sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep silent: standard output is for results."""


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Asker:
    """Asks for a page, over a new connection each time, and counts who answered."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._answered: Counter[str] = Counter()
        self._failures: list[str] = []
        self._failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def ask(self) -> None:
        """Ask once."""
        connection = HTTPConnection(self._address, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            self._answered[connection.getresponse().read().decode().strip()] += 1
        except (OSError, HTTPException) as error:
            self._failed += 1
            if len(self._failures) < _ENOUGH_FAILURES:
                self._failures.append(str(error) or type(error).__name__)
        finally:
            connection.close()

    def start(self) -> None:
        """Ask without pause from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    def tally(self) -> dict[str, Any]:
        """Return how many each pod answered, how many failed, and how the first of those did."""
        return {"answered": dict(self._answered), "failed": self._failed, "failures": self._failures}

    def _repeat(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            self.ask()


def main() -> None:
    """Obey commands until there are no more."""
    if len(sys.argv) > 2:
        server = _Server(("", int(sys.argv[2])), _Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _tell({"name": sys.argv[1]})
    asking: Asker | None = None
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "set", "parameters": dict(parameters)}:
                for path, value in parameters.items():
                    Path("/proc/sys", path).write_text(value)
                _tell({})
            case {"do": "ask", "address": str(address), "port": int(port), "count": int(count)}:
                asker = Asker(address, port)
                for _ in range(count):
                    asker.ask()
                _tell(asker.tally())
            case {"do": "start", "address": str(address), "port": int(port)}:
                asking = Asker(address, port)
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
