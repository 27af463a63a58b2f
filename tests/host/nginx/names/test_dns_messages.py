"""Messages of DNS: no bytes break their readers, and an answer is read as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.host.proxy.resolver import dns
from tests.host.nginx.names.name_server import question


@given(st.binary(max_size=600))
def test_no_bytes_break_the_readers(message):
    dns.read_question(message)
    asked = dns.read_question(question("a.test"))
    assert asked is not None
    dns.read_answer(message, asked, 7)
    dns.read_answer(question("a.test")[:2] + b"\x81\x80" + question("a.test")[4:] + message, asked, 7)


@given(st.lists(st.ip_addresses(v=4), max_size=200), st.integers(0, 15))
def test_an_answer_is_read_back_as_it_was_written(addresses, code):
    asked = dns.read_question(question("a.b.test"))
    assert asked is not None
    written = dns.write_answer(asked, code, [(each, 30) for each in addresses])
    assert len(written) <= 4096
    assert dns.read_answer(written, asked, 7) == dns.DnsAnswer(
        code, tuple((each, 30) for each in addresses[: dns.MOST_ADDRESSES])
    )


@pytest.mark.parametrize(
    "message",
    [
        question("b.test"),  # of another name
        question("a.test", dns.AAAA),  # of another type
        question("a.test", number=8),  # of another message
    ],
)
def test_an_answer_to_something_else_is_none(message):
    asked = dns.read_question(question("a.test"))
    assert asked is not None
    said = message[:2] + b"\x81\x80" + message[4:]
    assert dns.read_answer(said, asked, 7) is None
    assert dns.read_answer(question("a.test"), asked, 7) is None  # a question is no answer
