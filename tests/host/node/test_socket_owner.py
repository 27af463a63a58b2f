"""Whose a TCP connection is, as the kernel says: by a question for one socket, or by its list of all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from rulegen.host.netlink import messages
from rulegen.host.node import socket_owner
from rulegen.host.node.socket_owner import owner_of
from tests.rights import needs_root

NOBODY = 65534
CONNECTS = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[3]))
with socket.create_connection((sys.argv[1], int(sys.argv[2]))):
    sys.stdin.read()
"""


@pytest.fixture(params=["asked", "listed"])
def way(request, monkeypatch):
    """Both ways in which the kernel is asked."""
    if request.param == "listed":

        def refused(*_: object) -> socket.socket:
            raise FileNotFoundError(2, "no such part of the kernel")

        monkeypatch.setattr(messages, "connect", refused)
    return request.param


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request):
    try:
        listener = socket.create_server(
            (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
        )
    except OSError:
        pytest.skip("this host has no IPv6")
    listener.settimeout(60)
    with listener:
        yield listener


def ends(connection: socket.socket) -> tuple[tuple[str, int], tuple[str, int]]:
    return connection.getpeername()[:2], connection.getsockname()[:2]


def test_a_connection_of_ours_is_ours(way, listening):
    with socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert owner_of(*ends(connection)) == os.geteuid()


@needs_root
def test_a_connection_of_another_user_is_that_users(way, listening):
    address, port = listening.getsockname()[:2]
    words = [sys.executable, "-c", CONNECTS, address, str(port), str(NOBODY)]
    with subprocess.Popen(words, stdin=subprocess.PIPE):
        connection, _ = listening.accept()
        with connection:
            assert owner_of(*ends(connection)) == NOBODY


def test_what_its_program_has_closed_is_nobodys(way, listening):
    with socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
    with connection:  # the other end is in FIN_WAIT2, and the kernel would say root
        assert owner_of(*ends(connection)) is None


def test_a_listener_on_the_port_is_no_connection(way, listening):
    """Asked for a connection that is not there, the kernel answers with who listens on its port."""
    address, port = listening.getsockname()[:2]
    assert owner_of((address, port), (address, 1)) is None


def test_a_kernel_that_says_nothing_is_an_error(listening, monkeypatch, tmp_path):
    def refused(*_: object) -> socket.socket:
        raise PermissionError(1, "not for you")

    monkeypatch.setattr(messages, "connect", refused)
    monkeypatch.setattr(socket_owner, "Path", lambda _: tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        owner_of(("127.0.0.1", 1), ("127.0.0.1", 2))
