"""Heads of requests, right and wrong: each is a request or a refusal, and none keeps a server from answering."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.request import HEAD_BYTES, Request, RequestRefusal, head_length, parse
from rulegen.agent.pages_server.server import PageServer
from tests.agent.asking import ask
from tests.sizes import examples


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", Request("GET", "/")),
        (b"GET /a?b=c?d HTTP/1.1\r\nHost: x:1\r\n\r\n", Request("GET", "/a", "b=c?d", "x:1", {"host": "x:1"})),
        (b"HEAD / HTTP/1.0\nA: 1\na:2 \n\n", Request("HEAD", "/", "", None, {"a": "1, 2"})),
        (b"GET http://X/p HTTP/1.1\r\nHost: x\r\n\r\n", Request("GET", "/p", "", "X", {"host": "x"})),
        (b"GET http://x?q HTTP/1.0\r\n\r\n", Request("GET", "/", "q", "x")),
        (b"GET //x/../y HTTP/1.0\r\n\r\n", Request("GET", "//x/../y")),
        (b"GET /\xff HTTP/1.0\r\nA: \xe4\r\n\r\n", Request("GET", "/\xff", "", None, {"a": "\xe4"})),
    ],
)
def test_a_request_is_read(head, request_):
    assert parse(head) == request_


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\rVia: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno field\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET / HTTP/1.0\r\nA: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(head, status):
    refusal = parse(head)
    assert isinstance(refusal, RequestRefusal)
    assert refusal.status == status


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_refusal(head):
    assert isinstance(parse(head), Request | RequestRefusal)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"GET / HTTP/1.1", b"Host: x", b"A:", b"\r\n", b"\n", b"\r", b" ", b"\0", b":", b"x" * 40]),
        max_size=40,
    ),
    st.integers(1, 9),
)
def test_the_end_of_a_head_is_found_however_it_arrives(parts, step):
    """Found piece by piece, it is where it is when the bytes come at once."""
    whole = b"".join(parts)
    at_once = head_length(whole)
    received = bytearray()
    length = 0
    for at in range(0, len(whole), step):
        before = len(received)
        received += whole[at : at + step]
        if length := head_length(received, before):
            break
    assert length == at_once


@pytest.fixture(scope="module")
def server():
    serving = PageServer("127.0.0.1", 0, {"*": lambda: Reply(200, "well\n")}, probes=True)
    yield serving
    serving.stop()


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    start=st.sampled_from([b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"HEAD /", b"\x16\x03\x01"]),
    rest=st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([b"\r\n", b"Host: x\r\n", b"\r\n\r\n"]))),
    closes=st.sampled_from(["half", "reset", "whole"]),
)
def test_a_server_that_is_sent_anything_answers_or_closes(server, start, rest, closes):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client, suppress(ConnectionError):
        for piece in (start, *rest):
            client.sendall(piece)
        if closes == "half":
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            assert not answer or answer.startswith(b"HTTP/1.1 ")
        elif closes == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask(server.port)[:2] == (200, "well\n")
