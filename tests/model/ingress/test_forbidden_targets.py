"""nginx connects to nothing that belongs to the node, the cluster or the cloud, however an object spells it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.forbidden import Forbidden
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.reasons import Verdict
from rulegen.net import parse_network
from tests.strategies.ingresses import (
    WEB,
    certificate,
    compiled,
    config_map,
    endpoints,
    ingress,
    key_pem,
    path,
    reported,
    rule,
    secret,
    service,
    settings_map,
    site,
    text_of,
    tls,
    verdicts,
)

FORBIDDEN = Forbidden(
    own=frozenset(map(ip_address, ("192.0.2.7", "2001:db8::7"))),
    gateways=frozenset(map(ip_address, ("192.0.2.1", "2001:db8::1"))),
    api_servers=frozenset({(ip_address("192.0.2.100"), 6443)}),
    ports=(80, 443),
)
SPELLINGS = [
    "192.0.2.7",
    "192.000.002.007",
    "::ffff:192.0.2.7",
    "::FFFF:C000:0207",
    "0300.0.2.7",
    "0xc0000207",
    "3221225991",
    "192.0.519",
    "2001:db8::7",
    "2001:0DB8:0:0::0007",
    "64:ff9b::192.0.2.7",
    "2002:c000:0207::1",
    "192.0.2.1",
    "2001:db8::1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "FD00:0EC2::0254",
    "fd20:ce::254",
    "127.0.0.1",
    "127.1",
    "::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "fe80::1",
    "localhost",
]


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def by_endpoint(address: str) -> tuple[KubeObject, ...]:
    return service("web"), endpoints("web", (address,)), site()


def by_auth_url(address: str) -> tuple[KubeObject, ...]:
    return *WEB, site(auth_url=f"http://{bracketed(address)}:10250/pods")


def by_auth_url_over_tls(address: str) -> tuple[KubeObject, ...]:
    return *WEB, site(auth_url=f"https://{bracketed(address)}/")


def by_external_name(address: str) -> tuple[KubeObject, ...]:
    return service("web", type="ExternalName", external_name=address, cluster_ip=""), site()


def by_default_backend(address: str) -> tuple[KubeObject, ...]:
    return service("own"), endpoints("own", (address,)), site(default_backend="own")


def by_auth_of_a_service(address: str) -> tuple[KubeObject, ...]:
    own = service("own"), endpoints("own", (address,))
    return *WEB, *own, site(auth_url="http://own.default.svc.cluster.local/")


PLACES = [
    by_endpoint,
    by_auth_url,
    by_auth_url_over_tls,
    by_external_name,
    by_default_backend,
    by_auth_of_a_service,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("address", SPELLINGS)
def test_no_spelling_in_no_place_makes_nginx_connect(address, place):
    made = compiled(*place(address), forbidden=FORBIDDEN)
    assert "503" in text_of(made)
    assert "_pass" not in "".join(text_of(made).split())
    assert not [name for name in made.configuration.files if name.startswith("upstreams/")]
    assert verdicts(made) & {Verdict.UNAVAILABLE, Verdict.CLOSED, Verdict.REJECTED, Verdict.REFUSED}


@pytest.mark.parametrize("address", SPELLINGS)
def test_no_spelling_in_the_global_auth_url_does_either(address):
    settings = settings_map(global_auth_url=f"http://{bracketed(address)}:10250/")
    made = compiled(*WEB, settings, site(), forbidden=FORBIDDEN)
    assert "_pass" not in "".join(text_of(made).split())
    assert any("global-auth" in reason.message for reason in made.model.reasons if reason.verdict is Verdict.CLOSED)


@pytest.mark.parametrize("place", [by_endpoint, by_auth_url, by_external_name])
@pytest.mark.parametrize("address", ["192.0.2.8", "2001:db8::8"])
def test_addresses_of_other_nodes_are_served(address, place):
    if place is by_external_name and ":" in address:
        pytest.skip("no DNS name is spelled so")
    text = text_of(compiled(*place(address), forbidden=FORBIDDEN))
    assert "_pass" in text
    assert "return 503" not in text


def test_beside_a_refused_endpoint_the_others_serve_alone():
    """Behind the ClusterIP, the kernel would send requests to the endpoint that is refused here."""
    made = compiled(service("web"), endpoints("web", ("10.244.1.5", "192.0.2.7")), site(), forbidden=FORBIDDEN)
    (upstreams,) = (text for name, text in made.configuration.files.items() if name.startswith("upstreams/"))
    assert "10.244.1.5:8080" in upstreams
    assert "192.0.2.7" not in upstreams
    assert "backup" not in upstreams
    (reason,) = (reason for reason in reported(made) if reason.verdict is Verdict.REFUSED)
    assert "192.0.2.7:8080 is not used: 192.0.2.7 is an address of this node (see --ingress-allow-endpoint)" in (
        reason.message
    )


def test_service_upstream_leads_to_no_refused_endpoint():
    objects = service("web"), endpoints("web", ("10.244.1.5", "192.0.2.7")), site(service_upstream="true")
    made = compiled(*objects, forbidden=FORBIDDEN)
    (upstreams,) = (text for name, text in made.configuration.files.items() if name.startswith("upstreams/"))
    assert "10.244.1.5:8080" in upstreams
    assert "10.96." not in upstreams


@pytest.mark.parametrize("spec", [{"cluster_ip": "10.96.7.7"}, {"external_ips": ("198.51.100.9",)}])
def test_an_address_of_another_service_is_no_endpoint(spec):
    """It leads on to endpoints that nobody looks at here: those of a Service that are the node."""
    other = service("other", **spec)
    address = spec.get("cluster_ip") or spec["external_ips"][0]
    made = compiled(service("web"), endpoints("web", (address,)), other, site(), forbidden=FORBIDDEN)
    assert "_pass" not in text_of(made)
    assert any("is an address of Service default/other" in str(reason) for reason in reported(made))


@pytest.mark.parametrize("text", ["198.051.100.009", "::ffff:198.51.100.9"])
def test_no_spelling_of_an_external_ip_makes_it_an_endpoint(text):
    other = service("other", external_ips=(text,))
    made = compiled(service("web"), endpoints("web", ("198.51.100.9",)), other, site(), forbidden=FORBIDDEN)
    assert "_pass" not in text_of(made)


@pytest.mark.parametrize("other", [
    service("other", namespace="evil", external_ips=("10.244.1.5", "10.244.2.6", "192.0.2.8")),
    service("other", ports=(k.ServicePort(name="http", port=81),), external_ips=("10.244.1.5", "192.0.2.8")),
])  # fmt: skip
@pytest.mark.parametrize("address", ["10.244.1.5", "192.0.2.8"])
def test_an_external_ip_takes_no_endpoint_from_others(address, other):
    """Anybody may write any address there: that of a Pod, or of a node, whose Pods of the host's network have it."""
    made = compiled(service("web"), endpoints("web", (address,)), other, site(), forbidden=FORBIDDEN)
    assert any(f"server {address}:8080" in text for text in made.configuration.files.values())
    assert not reported(made)


def test_an_api_server_is_refused_at_its_port_alone():
    for port, is_refused in ((6443, True), (9100, False)):
        objects = service("web"), endpoints("web", ("192.0.2.100",), ports=(("http", port),)), site()
        assert ("_pass" not in text_of(compiled(*objects, forbidden=FORBIDDEN))) is is_refused


def test_the_node_may_be_allowed_but_never_the_ports_of_nginx():
    allowed = Forbidden(own=FORBIDDEN.own, allowed=(parse_network("192.0.2.0/24"),), ports=(80, 443))
    for port, is_refused in ((9100, False), (80, True), (443, True)):
        objects = service("web"), endpoints("web", ("192.0.2.7",), ports=(("http", port),)), site()
        assert ("_pass" not in text_of(compiled(*objects, forbidden=allowed))) is is_refused


def test_the_node_object_counts_with_the_host():
    node = k.Node(
        metadata=k.ObjectMeta(name="node1"),
        status=k.NodeStatus(addresses=(k.NodeAddress(type="ExternalIP", address="203.0.113.7"),)),
    )
    objects = service("web"), endpoints("web", ("203.0.113.7",)), site()
    assert "_pass" in text_of(compiled(*objects, forbidden=FORBIDDEN, node="node1"))
    assert "_pass" not in text_of(compiled(*objects, node, forbidden=FORBIDDEN, node="node1"))
    assert "_pass" in text_of(compiled(*objects, node, forbidden=FORBIDDEN, node="node2"))


def test_a_canary_passes_nothing_to_the_node():
    canary = ingress(
        "canary",
        rule("site.test", path("/", to="own")),
        annotations={"canary": "true", "canary-weight": "100"},
    )
    made = compiled(*WEB, service("own"), endpoints("own", ("192.0.2.7",)), site(), canary, forbidden=FORBIDDEN)
    assert not any("192.0.2.7" in text for text in made.configuration.files.values())


@pytest.mark.parametrize("host", ["*.0.0.1", "127.000.000.001", "x.1"])
def test_a_host_that_may_be_an_address_is_not_asked_who_may(host):
    """A client that asks for 127.0.0.1 would have nginx connect to it, as to what $host says."""
    rules = ingress("site", rule(host), annotations={"auth-url": "http://$host:10249/"})
    files = compiled(*WEB, rules, forbidden=FORBIDDEN).configuration.files
    assert not any("_pass " in text for name, text in files.items() if name.startswith("hosts/"))
    good = ingress("site", rule("site.test"), annotations={"auth-url": "http://$host/", "server-alias": host})
    made = compiled(*WEB, good, forbidden=FORBIDDEN)
    assert host.lstrip("*") not in text_of(made)
    assert verdicts(made) == {Verdict.IGNORED}


def with_responder(url: str) -> tuple[KubeObject, ...]:
    """Return an Ingress with TLS whose certificate names an OCSP responder, where nginx asks such."""
    pair = secret("own", tls_crt=certificate("site.test", responder=url), tls_key=key_pem())
    site_ = ingress("site", rule("site.test"), tls=[tls("own", "site.test")])
    return *WEB, pair, site_, settings_map(enable_ocsp="true")


@pytest.mark.parametrize("address", SPELLINGS)
def test_no_spelling_of_an_ocsp_responder_makes_nginx_connect(address):
    """A tenant writes the certificate, and nginx asks the server that it names whether it was revoked."""
    made = compiled(*with_responder(f"http://{bracketed(address)}:10249/"), forbidden=FORBIDDEN)
    assert "ssl_stapling" not in text_of(made)
    assert Verdict.REFUSED in verdicts(made)


@pytest.mark.parametrize(
    "url", ["https://ocsp.test/", "http://user@ocsp.test/", "ftp://ocsp.test/", "http://[fe80::1%25eth0]/"]
)
def test_a_responder_that_nginx_may_read_otherwise_is_not_asked(url):
    assert "ssl_stapling" not in text_of(compiled(*with_responder(url), forbidden=FORBIDDEN))


def test_a_responder_by_name_is_resolved_by_our_own_process():
    host = HttpHost(user="", names_port=10353, ipv6=False)
    made = compiled(*with_responder("http://ocsp.test:8080/x"), forbidden=FORBIDDEN, host=host)
    assert "ssl_stapling on;" in text_of(made)
    assert "resolver 127.0.0.2:10353 valid=30s ipv6=off;" in text_of(made)
    assert "ssl_stapling" not in text_of(compiled(*with_responder("http://ocsp.test/x"), resolvers=()))


@pytest.mark.parametrize("header", ["X-Rulegen-Hops", "x-rulegen-hops", "X_Rulegen_Hops"])
def test_nobody_sets_the_header_that_ends_loops(header):
    headers = config_map("own", {header: "0"})
    made = compiled(*WEB, headers, site(auth_url="http://auth.test/", auth_proxy_set_headers="own"))
    assert verdicts(made) == {Verdict.CLOSED}
    made = compiled(*WEB, site(auth_url="http://auth.test/", auth_response_headers=header))
    assert verdicts(made) == {Verdict.CLOSED}


def test_each_question_and_each_request_carries_the_mark():
    replaced = site(auth_url="http://auth.test/", auth_response_headers="X-User", custom_http_errors="404",
                    default_backend="web")  # fmt: skip
    text = text_of(compiled(*WEB, replaced))
    assert text.count("proxy_pass ") == text.count("proxy_set_header X-Rulegen-Hops $hops;") >= 3
    assert text.count("return 508") == 1
