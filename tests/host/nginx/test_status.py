"""What is asked of nginx's status socket ends in time, whoever answers there."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rulegen.host.nginx.status import ask

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def answers(tmp_path: Path):
    """Serves one client of the status socket of a folder; returns the folder."""
    (tmp_path / "run").mkdir()
    ends = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "run" / "status.sock"))
        listening.listen()

        def start(head: bytes, again: bytes, pause_s: float) -> Path:
            def serve() -> None:
                with suppress(OSError), listening.accept()[0] as client:
                    client.recv(4096)
                    client.sendall(head)
                    while again and not ends.wait(pause_s):
                        client.sendall(again)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            threads.append(thread)
            return tmp_path

        threads: list[threading.Thread] = []
        yield start
        ends.set()
        for thread in threads:
            thread.join()


def test_an_answer_is_its_body(answers):
    assert ask(answers(HEAD + b"digest\n", b"", 0)) == "digest"


@pytest.mark.parametrize("again", [b"x", b"x" * 4096])
def test_one_that_never_ends_is_none(answers, again):
    """Byte by byte it takes too long, in large pieces it is too long."""
    assert ask(answers(HEAD, again, 0.01), timeout_s=0.5) is None
