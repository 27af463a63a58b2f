"""On a real HAProxy, no client avoids a check by what it says of itself, or chooses the host of a redirect."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.backends.haproxy.conftest import CLIENT
from tests.strategies.ingresses import site

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

BALANCER = "127.0.0.2"
INSIDE, OUTSIDE = "192.168.1.1", "203.0.113.1"
SEEN = "/?$best_http_host+$pass_access_scheme+$pass_port"
WITH_PROXY = {"use_proxy_protocol": "true", "whitelist_source_range": "192.168.0.0/16"}


def test_who_is_not_trusted_does_not_avoid_the_redirect_to_https(serve):
    ask = serve(site(force_ssl_redirect="true"), use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32")

    assert ask(source=CLIENT, X_Forwarded_Proto="https") == (308, "https://site.test")
    assert ask(source=BALANCER, X_Forwarded_Proto="https")[0] == 503  # it passes, and there is no endpoint


def test_who_is_not_trusted_tells_no_protocol_host_and_port(serve):
    ask = serve(
        site(temporal_redirect=SEEN, relative_redirects="true"),
        use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32",
    )  # fmt: skip
    said = {"X_Forwarded_Proto": "https", "X_Forwarded_Port": "77", "X_Forwarded_Host": "told.test"}

    assert ask(source=BALANCER, **said) == (302, "/?told.test+https+77")
    status, where = ask(source=CLIENT, **said)
    assert status == 302
    assert re.fullmatch(r"/\?site\.test\+http\+(?!77$)\d+", where)


def test_without_networks_of_its_own_everybody_is_believed(serve):
    """As with ingress-nginx; a warning says so."""
    ask = serve(site(temporal_redirect=SEEN, relative_redirects="true"), use_forwarded_headers="true")

    assert ask(X_Forwarded_Proto="https", X_Forwarded_Port="77") == (302, "/?site.test+https+77")


def test_a_proxy_header_of_who_is_not_trusted_passes_no_whitelist(serve):
    ask = serve(site(), **WITH_PROXY, proxy_real_ip_cidr=f"{BALANCER}/32")

    assert ask(source=CLIENT, said=INSIDE)[0] == 400
    assert ask(source=CLIENT)[0] == 403
    assert ask(source=BALANCER, said=INSIDE)[0] == 503  # it passes, and there is no endpoint
    assert ask(source=BALANCER, said=OUTSIDE)[0] == 403


def test_with_a_proxy_header_the_headers_of_a_trusted_neighbour_count(serve):
    """The neighbour is who connects, not the address in the PROXY header."""
    ask = serve(
        site(temporal_redirect=SEEN, relative_redirects="true"), use_proxy_protocol="true",
        use_forwarded_headers="true", proxy_real_ip_cidr=f"{BALANCER}/32",
    )  # fmt: skip

    assert ask(source=BALANCER, said=OUTSIDE, X_Forwarded_Port="77") == (302, "/?site.test+http+77")
    assert ask(source=CLIENT, X_Forwarded_Port="77")[1] != "/?site.test+http+77"


def test_with_an_empty_list_nobody_is_trusted(serve):
    ask = serve(site(), **WITH_PROXY, proxy_real_ip_cidr="")

    assert ask(source=CLIENT, said=INSIDE)[0] == 400
    assert ask(source=BALANCER)[0] == 403


def test_without_networks_of_its_own_every_connection_has_a_proxy_header(serve):
    ask = serve(site(), **WITH_PROXY)

    assert ask(source=CLIENT, said=INSIDE)[0] == 503
    assert ask(source=BALANCER, said=OUTSIDE)[0] == 403


@pytest.mark.parametrize(
    ("target", "path", "where"),
    [
        ("/$request_uri", "/evil.test", "/evil.test"),
        ("/$request_uri", "//evil.test/x?y", "/evil.test/x?y"),
        ("/$location_path$arg_next", "/?next=evil.test", "/evil.test"),
        ("/$location_path$arg_next", "/?next=//evil.test", "/evil.test"),
        ("/$arg_next", r"/?next=\\evil.test", "/evil.test"),
        ("/$arg_next", "/", "/"),
        ("/$location_path", "/", "/"),
        ("/a$arg_next", "/?next=//b", "/a//b"),
        ("/new", "/", "/new"),
    ],
)
def test_a_relative_redirect_leads_to_no_other_host(serve, target, path, where):
    ask = serve(site(temporal_redirect=target, relative_redirects="true"))

    assert ask(path) == (302, where)
