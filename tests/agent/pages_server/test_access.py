"""By which names a node may be asked, and what shows that a proxy passed a request on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.agent.pages_server.access import field_of_proxy, is_loopback_name, is_ours, name_of, source_of
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import PageServer
from tests.agent.asking import ask

NAMES = frozenset({"web-1", "web-1.example"})


@pytest.mark.parametrize(
    ("host", "ours", "loopback"),
    [
        (None, True, True),
        ("localhost", True, True),
        ("LOCALHOST.:10249", True, True),
        ("127.0.0.1:10249", True, True),
        ("127.8.9.1", True, True),
        ("[::1]", True, True),
        ("[::1]:10249", True, True),
        ("::1", True, True),
        ("10.0.0.1", True, False),
        ("10.0.0.1:10256", True, False),
        ("[2001:db8::1]:10256", True, False),
        ("web-1", True, False),
        ("Web-1.Example:10249", True, False),
        ("web-1.evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("127.0.0.1.evil.example", False, False),
        ("127.1", False, False),
        ("0x7f000001", False, False),
        ("[localhost]", False, False),
        ("[127.0.0.1]", False, False),
        ("[::1", False, False),
        ("localhost:port", False, False),
        ("user@localhost", False, False),
        ("localhost, evil.example", False, False),
        ("", False, False),
        (":80", False, False),
    ],
)
def test_a_host_is_ours_by_address_or_name(host, ours, loopback):
    assert (is_ours(host, NAMES), is_loopback_name(host)) == (ours, loopback)


@settings(deadline=None)
@given(st.text(max_size=30))
@pytest.mark.slow
def test_any_text_is_a_name_or_none(text):
    assert name_of(text) != ""


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("x-forwarded-for", True),
        ("x-forwarded-whatever", True),
        ("forwarded", True),
        ("via", True),
        ("x-real-ip", True),
        ("x-request-id", True),
        ("x-scheme", True),
        ("x-original-forwarded-for", True),
        ("x-envoy-external-address", True),
        ("true-client-ip", True),
        ("accept", False),
        ("user-agent", False),
        ("x-my-own", False),
    ],
)
def test_fields_of_proxies_are_known(name, shows):
    assert field_of_proxy(["host", name]) == (name if shows else None)


@pytest.mark.parametrize(
    ("client", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%lo", "fe80::2", True),
        ("127.0.0.1", "127.9.9.9", True),
        ("127.0.0.1", "::1", True),
    ],
)
def test_clients_are_counted_by_what_one_host_can_choose(client, other, same):
    assert (source_of(client) == source_of(other)) is same


class TestForeignNames:
    """A page in a browser, whose name was made to resolve to this node, reads nothing (DNS rebinding)."""

    @staticmethod
    def asked(host: str, **options) -> tuple[int, str, dict[str, str]]:
        page = lambda: Reply.of_json(200, {"secret": 1}, {"X-Load-Balancing-Endpoint-Weight": "2"})  # noqa: E731
        server = PageServer("127.0.0.1", 0, {"/x": page}, names=lambda: {"web-1", "metrics.example"}, **options)
        try:
            return ask(server.port, "/x", headers={"Host": host})
        finally:
            server.stop()

    @pytest.mark.parametrize("host", ["10.0.0.1:10249", "web-1:10249", "metrics.example"])
    def test_metrics_are_for_whoever_names_this_node(self, host):
        assert self.asked(host)[0] == 200

    def test_metrics_are_refused_to_others(self):
        status, body, _ = self.asked("evil.example:10249")
        assert status == 421
        assert "secret" not in body
        assert "--metrics-host" in body

    def test_another_host_name_gets_the_status_alone(self):
        """A load balancer that names another host learns the status alone."""
        status, body, headers = self.asked("evil.example", probes=True)
        assert (status, body) == (200, "")
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"

    def test_a_probe_by_address_learns_all(self):
        assert "secret" in self.asked("10.0.0.1", probes=True)[1]
