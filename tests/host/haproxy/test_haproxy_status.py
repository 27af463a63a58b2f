"""The answers of HAProxy's master: which workers are old, and what the new ones serve."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from rulegen.host.haproxy.status import SOCKET, fields, old_workers, serves

PROCESSES = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
3201            master          1 [failed: 0]   0d00h10m24s     2.6.12
# workers
7454            worker          0               0d00h00m02s     2.6.12
# old workers
3206            worker          1               0d00h10m24s     2.6.12
3207            worker          2               0d00h11m24s     2.6.12
# programs
3210            name            0               0d00h11m24s     2.6.12

"""


def test_old_workers_are_those_of_their_part_of_the_list():
    assert old_workers(PROCESSES) == [3206, 3207]
    assert old_workers("") == []
    assert old_workers("# old workers\nnonsense\n") == []


def test_a_value_may_have_a_colon():
    assert fields("Pid: 1\ndescription: a: b\nnothing\n") == {"Pid": "1", "description": "a: b"}


@pytest.mark.parametrize(
    ("new", "old", "served"),
    [
        ("Stopping: 0\n", "Stopping: 1\n", "abc"),
        ("Stopping: 0\n", "", "abc"),  # it has ended meanwhile
        ("Stopping: 0\n", "Stopping: 0\n", None),
        ("Stopping: 1\n", "Stopping: 1\n", None),
    ],
)
def test_a_digest_is_served_once_no_old_worker_accepts_connections(tmp_path, new, old, served):
    digest = "proc.digest: type=str value=<abc>\n"
    answers = {"show proc": PROCESSES, "@1 show info": new, "@1 get var proc.digest": digest}
    with _master(tmp_path, lambda command: answers.get(command, old)):
        assert serves(tmp_path) == served


def test_a_worker_without_a_digest_serves_nothing_of_ours(tmp_path):
    answers = {
        "show proc": PROCESSES,
        "@1 show info": "Stopping: 0\n",
        "@1 get var proc.digest": "Variable not found\n",
    }
    with _master(tmp_path, lambda command: answers.get(command, "Stopping: 1\n")):
        assert serves(tmp_path) is None


def test_nobody_who_does_not_answer_serves(tmp_path):
    (tmp_path / "run").mkdir()
    assert serves(tmp_path) is None
    assert serves(tmp_path / "missing") is None


def test_an_endless_answer_has_an_end(tmp_path):
    with _master(tmp_path, lambda _: "x" * (2 << 20)):
        assert serves(tmp_path) is None


class _master:  # noqa: N801 - used as a function
    """Answers commands on the socket of a master, as HAProxy does: one each connection."""

    def __init__(self, folder: Path, reply) -> None:
        self._reply = reply
        (folder / "run").mkdir()
        descriptor = os.open(folder / "run", os.O_PATH)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        os.close(descriptor)
        self._socket.listen()

    def __enter__(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                command = connection.makefile("rb").readline().decode().strip()
                try:
                    connection.sendall(self._reply(command).encode())
                except OSError:
                    continue
