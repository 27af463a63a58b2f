"""On a real HAProxy, no request avoids a check because HAProxy counts, compares or gives up in another way than nginx.

A request that passes all checks is answered with 503: the Service has no endpoint.
"""

from __future__ import annotations

import re
import shutil
import socket

import pytest

from rulegen.backends.haproxy import configuration
from rulegen.backends.haproxy.lua_program.requests import PROGRAM
from tests.strategies.ingresses import ingress, path, rule, site

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

PASSED = 503
INSIDE = "192.168.1.1"
WITHIN = {"whitelist-source-range": "192.168.0.0/16"}
MANY_STEPS = "api/" * 1500


@pytest.mark.parametrize("length", [2000, 2**31 + 5, 2**32 + 1, 2**63 - 1, 2**64 - 1])
def test_no_length_is_too_large_to_be_rejected(serve, length):
    ask = serve(site(proxy_body_size="1k"))

    assert ask(method="POST", Content_Length=str(length)) == (413, "")
    assert ask(method="POST", Content_Length="0") == (PASSED, "")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PROPFIND", "GET"])
@pytest.mark.parametrize(("body", "status"), [(None, b"503"), (b"x" * 2000, b"41[13]"), ("later", b"411")])
def test_no_method_hides_a_body_of_unknown_length_in_http_2(serve, method, body, status):
    """`later`: the body has not arrived yet when HAProxy decides."""
    ask = serve(site(proxy_body_size="1k"))

    assert re.search(rb"\x03" + status, _over_http_2(ask.args[0], method, body))


def _over_http_2(port: int, method: str, body: bytes | str | None) -> bytes:
    """Return what HAProxy sends until its first answer; it writes the status as three digits."""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    def frame(kind: int, flags: int, content: bytes, stream: int = 1) -> bytes:
        return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content

    pairs = {":method": method, ":scheme": "http", ":authority": "site.test", ":path": "/"}
    head = b"".join(literal(name.encode(), value.encode()) for name, value in pairs.items())
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"", 0) + frame(1, 4 | (body is None), head)
    if isinstance(body, bytes):
        sent += frame(0, 1, body)
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        while not re.search(rb"\x03[45]\d\d", received):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received


@pytest.mark.parametrize(
    ("listed", "client", "is_within"),
    [
        ("::/0", INSIDE, False),
        ("192.168.0.0/16", "2002:c0a8:0101::1", False),
        ("192.168.0.0/16", "::c0a8:0101", False),
        ("192.168.0.0/16", INSIDE, True),
        ("192.168.0.0/16", f"::ffff:{INSIDE}", True),
        ("192.168.0.0/16", "0:0:0:0:0:ffff:c0a8:101", True),
        ("::/0,192.168.0.0/16", f"::FFFF:{INSIDE}", True),
        ("::/0", f"::ffff:{INSIDE}", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32,0.0.0.0/0", INSIDE, True),
        ("0.0.0.0/0,2001:db8::/32", "2001:db9::1", False),
    ],
)
def test_a_network_has_only_addresses_of_its_own_family(serve, listed, client, is_within):
    ask = serve(
        site("allowed.test", whitelist_source_range=listed), site("denied.test", denylist_source_range=listed),
        use_forwarded_headers="true",
    )  # fmt: skip

    allowed = ask(Host="allowed.test", X_Forwarded_For=client)[0]
    denied = ask(Host="denied.test", X_Forwarded_For=client)[0]
    assert (allowed, denied) == ((PASSED, 403) if is_within else (403, PASSED))


def test_a_proxy_that_writes_its_address_in_ipv6_notation_is_trusted(serve):
    ask = serve(
        site(whitelist_source_range="203.0.113.0/24"), use_forwarded_headers="true",
        proxy_real_ip_cidr="127.0.0.0/8,10.0.0.0/8",
    )  # fmt: skip

    assert ask(X_Forwarded_For="203.0.113.1, ::ffff:10.0.0.5")[0] == PASSED
    assert ask(X_Forwarded_For="203.0.113.1, 2002:0a00:0005::1")[0] == 403
    assert ask(X_Forwarded_For="203.0.113.1, ::ffff:11.0.0.5")[0] == 403


def test_what_is_no_address_of_a_client_is_not_believed(serve):
    ask = serve(site(whitelist_source_range="192.168.0.0/16"), use_forwarded_headers="true")

    assert ask(X_Forwarded_For=f"{INSIDE}, 999.1.1.1")[0] == 403
    assert ask(X_Forwarded_For=f"999.1.1.1, {INSIDE}")[0] == PASSED


@pytest.mark.parametrize("failing", ["", "error('out of memory')"])
def test_no_client_counts_as_its_proxy_where_lua_fails(serve, monkeypatch, failing):
    """The client is outside, its proxy is in the range: the action that tells them apart fails."""
    start = 'register_action("rulegen_client", { "http-req" }, function(txn, name)'
    assert PROGRAM.count(start) == 1
    monkeypatch.setattr(configuration, "PROGRAM", PROGRAM.replace(start, f"{start} {failing}"))
    ask = serve(site(whitelist_source_range="127.0.0.0/8"), use_forwarded_headers="true")

    assert ask(X_Forwarded_For="203.0.113.1")[0] == (500 if failing else 403)


def _expressions(*guarded: str):
    """Return a host whose paths of these expressions are for a network, and all others for everybody."""
    own = {"use-regex": "true", **WITHIN}
    return (
        ingress("guarded", rule("site.test", *(path(x, "ImplementationSpecific") for x in guarded)), annotations=own),
        ingress("open", rule("site.test", path("/"), path("/x(.*)", "ImplementationSpecific"))),
    )


def test_no_path_takes_so_many_steps_that_its_expression_is_passed_over(serve):
    ask = serve(*_expressions("/(.*)/api/(.*)/admin(/|$)"))

    assert ask("/x/api/y/admin/") == (403, "")
    assert ask("/xyz") == (PASSED, "")
    assert ask("/other") == (PASSED, "")
    assert ask(f"/x/api/y/admin/{MANY_STEPS}")[0] in {403, 500}
    assert ask(f"/{MANY_STEPS}")[0] in {PASSED, 500}


def test_an_expression_that_is_given_up_leaves_the_others_of_its_host_alone(serve):
    ask = serve(*_expressions("/(.*)/api/(.*)/admin(/|$)", "/[a-z]+/(.*)/b(.*)/c d$"))

    assert ask("/q/api/y/admin")[0] == 403
    assert ask("/q/1/b/c%20d")[0] == 403
    assert ask("/q/1/b/C%20D")[0] == 403
    assert ask("/xa")[0] == PASSED
    assert ask("/plain")[0] == PASSED
    assert ask(f"/x/api/y/admin/{MANY_STEPS}")[0] in {403, 500}


@pytest.mark.parametrize(
    ("listed", "sent", "status"),
    [
        ("~*ba+d", "a BAAD browser", 403),
        ("~ba+d", "a BAAD browser", PASSED),
        ("~*ba+d", "a good browser", PASSED),
        ("bad", "bad", 403),
        ("bad", "bad too", PASSED),
        ("~*(.*)x(.*)y(.*)z$", f"{'xy' * 1500}z", 403),
        ("~*(.*)x(.*)y(.*)z$", f"xyz{'xy' * 1500}", 403),
    ],
)
def test_no_browser_takes_so_many_steps_that_it_is_not_blocked(serve, listed, sent, status):
    ask = serve(site(), block_user_agents=listed)

    assert ask(User_Agent=sent)[0] == status
    assert ask()[0] == PASSED
