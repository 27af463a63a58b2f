"""The outside as a client sees it: ports, protocol, address and host; and backends that are hostile."""

from __future__ import annotations

import re

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import CLIENT_V6, NODE_V6, Scenario, Stage, World
from integration.ingress.identities import pair, site_secret, tls_secret
from integration.ingress.scenarios.plain import answering, plain
from integration.ingress.scenarios.protection.forwarded import trusting
from rulegen.host.commands.runner import run
from rulegen.host.nginx.facts import gather_nginx
from rulegen.languages.nginx.facts import HEADERS_MORE

_CLIENT = "203.0.113.7"
_CLOSED = {"whitelist-source-range": "203.0.113.9", "limit-rps": "1", "limit-burst-multiplier": "1"}
_REFUSES = "http://auth.default.svc.cluster.local/status/403"
_SHARED = pair("shared", names=("*.shared.test",))


def _seen(**headers: str) -> dict[str, object]:
    """Return what a backend must see: headers by name, with `_` for `-`."""
    return {"status": 200, "backend_sees": {"headers": {key.replace("_", "-"): text for key, text in headers.items()}}}


def _in(world: World, name: str, documents: list[objects.Document], *asks: Ask) -> Scenario:
    return Scenario(name=name, world=world, documents=tuple(documents), asks=asks)


def _proxied(host: str, to: int, *, port: int = 80, tls: bool = False, **more: object) -> Ask:
    """Return a question that a load balancer passes on, which the client has sent to a port of it."""
    before = f"PROXY TCP4 {_CLIENT} 192.168.50.10 5000 {to}\r\n".encode()
    return Ask(host=host, before=before, port=port, tls=tls, **more)  # type: ignore[arg-type]


# -- a hostile backend -----------------------------------------------------------------------------------------------

_GUARDED = {
    "auth-url": "http://auth.default.svc.cluster.local/",
    "custom-http-errors": "418",
    "default-backend": "errors",
}


def _reached(stage: Stage) -> object:
    """No answer of a backend is replaced by what an internal location, or another path, answers."""
    text = "\n".join(stage.lab.node.rendered().values())
    auth = re.findall(r"location = (//rulegen/auth/[0-9a-f]+) ", text)
    errors = re.findall(r"location (@e418_[0-9a-f]+) ", text)
    if not auth or not errors:
        return f"no internal locations: {auth} {errors}"
    wrong = []
    assert stage.facts is not None
    for host, service in (("hostile.test", "other"), ("hostile-scripts.test", "")):
        for target in (*auth, *errors, "/other"):
            reply = stage.client.ask_one(Ask(host=host, path="/evil", headers=answering({"X-Accel-Redirect": target})))
            is_own = stage.facts.owner(reply) == ("default", service) if service else "SERVER_SOFTWARE" in reply.json
            if reply.status != 200 or not is_own or reply.all("X-Accel-Redirect"):
                wrong.append(f"{host} {target}: {reply.status} {reply.headers} {reply.body[:200]!r}")
    return wrong


_HOSTILE = [
    plain(
        "backends-reach-no-other-location",
        [
            site("hostile.test", _GUARDED, name="hostile-guarded"),
            site("hostile.test", service="other", path="/evil", name="hostile-evil"),
            site("hostile.test", service="third", path="/other", name="hostile-other"),
            site("hostile-scripts.test", {"backend-protocol": "FCGI"}, "scripts", path="/evil"),
            site("hostile-scripts.test", path="/other", name="hostile-scripts-other"),
        ],
        then=_reached,
    ),
    plain(
        "auth-servers-reach-no-other-location",
        [site("hostile-auth.test", {"auth-url": "http://auth.default.svc.cluster.local/status/403?to=/"})],
        Ask(host="hostile-auth.test", want={"status": 403}),
    ),
    plain(
        "a-backend-chooses-how-its-answer-is-buffered",
        [site("accel.test", {"limit-rate": "10"})],
        # The rate is limited for buffered answers only.
        Ask(
            host="accel.test",
            headers={**answering({"X-Accel-Buffering": "yes"}), "X-Long": "l" * 7000, "X-Longer": "l" * 7000},
            want={"status": 200, "seconds": [0.3, 8], "headers_absent": ["X-Accel-Buffering"]},
        ),
        Ask(
            host="accel.test",
            headers={"X-Long": "l" * 7000, "X-Longer": "l" * 7000},
            want={"status": 200, "seconds": [0, 0.3]},
        ),
    ),
]

# -- ports, protocol, address, host ----------------------------------------------------------------------------------

_PROXY = World(
    name="proxy-protocol",
    config={"use-proxy-protocol": "true", "proxy-real-ip-cidr": "192.168.50.0/24"},
)
_OTHER_PORTS = World(
    name="other-ports",
    config={
        "compute-full-forwarded-for": "true",
        "enable-real-ip": "true",
        "forwarded-for-header": "X-Client",
        "proxy-real-ip-cidr": "192.168.50.100/32",
        "relative-redirects": "true",
    },
    flags={"http-port": "1080", "https-port": "1443"},
)
_BOTH = World(
    name="proxy-protocol-and-forwarded-headers",
    config={
        "use-proxy-protocol": "true",
        "use-forwarded-headers": "true",
        "proxy-real-ip-cidr": "192.168.50.0/24",
        "add-headers": "default/named",
    },
    flags={"http-port": "1080", "https-port": "1443"},
    documents=(objects.config_map("named", {"Server": "own"}),),
)
_ANYBODY = World(
    name="trusting-anybody",
    config={
        "use-forwarded-headers": "true",
        "forwarded-host-header": "X-Host-Outside",
        "default-type": "text/plain",
        "disable-ipv6-dns": "true",
        "enable-multi-accept": "false",
        "grpc-buffer-size-kb": "16",
        "gzip-disable": "Old[0-9]$",
        "gzip-min-length": "100",
        "ssl-early-data": "true",
        "use-gzip": "true",
        "worker-cpu-affinity": "auto",
    },
)

_OUTSIDE = [
    _in(
        _PROXY,
        "the-port-of-the-proxy-header-is-the-clients",
        [site("outside.test", {"ssl-redirect": "false"}, secret="outside.test"), site_secret("outside.test")],
        _proxied(
            "outside.test",
            1234,
            headers={"X-Forwarded-Port": "1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "forged.test"},
            want=_seen(
                X_Forwarded_Port="1234",
                X_Forwarded_Proto="http",
                X_Forwarded_Scheme="http",
                X_Scheme="http",
                X_Forwarded_Host="outside.test",
                X_Original_Forwarded_Host="forged.test",
                X_Forwarded_For=_CLIENT,
                X_Real_IP=_CLIENT,
            ),
        ),
        _proxied(
            "outside.test",
            443,
            want=_seen(X_Forwarded_Port="443", X_Forwarded_Proto="https", X_Forwarded_Scheme="https", X_Scheme="https"),
        ),
        _proxied(
            "outside.test",
            1234,
            port=443,
            tls=True,
            want=_seen(X_Forwarded_Port="1234", X_Forwarded_Proto="https", X_Scheme="https"),
        ),
    ),
    _in(
        _PROXY,
        "a-proxy-header-of-who-is-not-trusted-means-nothing",
        [
            site("untrusted.test", {"ssl-redirect": "false"}, secret="untrusted.test"),
            site("untrusted-forced.test", {"force-ssl-redirect": "true"}),
            site_secret("untrusted.test"),
        ],
        _proxied(
            "untrusted.test",
            443,
            address=NODE_V6,
            source=CLIENT_V6,
            want=_seen(X_Forwarded_Port="80", X_Forwarded_Proto="http", X_Scheme="http", X_Real_IP=CLIENT_V6),
        ),
        _proxied("untrusted-forced.test", 443, address=NODE_V6, source=CLIENT_V6, want={"status": 308}),
        _proxied("untrusted-forced.test", 443, want={"status": 200}),
    ),
    _in(
        _OTHER_PORTS,
        "ports-of-nginx-that-are-not-the-usual-ones",
        [site("odd.test", {"ssl-redirect": "false"}, secret="odd.test"), site_secret("odd.test")],
        Ask(
            host="odd.test:1080",
            port=1080,
            headers={"X-Forwarded-Port": "1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "forged.test"},
            want=_seen(
                X_Forwarded_Port="1080",
                X_Forwarded_Proto="http",
                X_Forwarded_Host="odd.test:1080",
                X_Original_Forwarded_Host="forged.test",
            ),
        ),
        Ask(
            host="odd.test:1443",
            port=1443,
            tls=True,
            want=_seen(X_Forwarded_Port="443", X_Forwarded_Proto="https", X_Forwarded_Host="odd.test:1443"),
        ),
    ),
    _in(
        _OTHER_PORTS,
        "redirects-of-one-ingress-are-as-it-says",
        [
            site("port-https.test", {"force-ssl-redirect": "true", "use-port-in-redirects": "true"}),
            site("no-port-https.test", {"force-ssl-redirect": "true"}),
            site("relative-all.test", {"permanent-redirect": "/new"}),
            site("relative-not.test", {"permanent-redirect": "/new", "relative-redirects": "false"}),
            site(
                "relative-port.test",
                {"temporal-redirect": "/new", "relative-redirects": "false", "use-port-in-redirects": "true"},
            ),
        ],
        *(
            Ask(host=host, port=1080, path="/x", want={"status": status, "location": location})
            for host, status, location in (
                ("port-https.test", 308, "https://port-https.test:1443/x"),
                ("no-port-https.test", 308, "https://no-port-https.test/x"),
                ("relative-all.test", 301, "/new"),
                ("relative-not.test", 301, "http://relative-not.test/new"),
                ("relative-port.test", 302, "http://relative-port.test:1080/new"),
            )
        ),
    ),
    plain(
        "redirects-come-before-all-that-may-refuse",
        [
            site("first-https.test", {"force-ssl-redirect": "true", **_CLOSED}),
            site("first-moved.test", {"permanent-redirect": "https://new.test", **_CLOSED}),
            site("first-away.test", {"temporal-redirect": "https://new.test"}, "empty"),
            site("first-asked.test", {"force-ssl-redirect": "true", "auth-url": _REFUSES}),
            site("first-cors.test", {"permanent-redirect": "https://new.test", "enable-cors": "true"}),
        ],
        Ask(host="first-https.test", want={"status": 308}),
        Ask(host="first-https.test", tls=True, want={"status": 403}),
        Ask(host="first-asked.test", want={"status": 308}),
        Ask(host="first-asked.test", tls=True, want={"status": 403}),
        Ask(host="first-moved.test", want={"status": 301, "location": "https://new.test"}),
        Ask(host="first-away.test", want={"status": 302, "location": "https://new.test"}),
        Ask(host="first-cors.test", want={"status": 301}),
        Ask(
            host="first-cors.test",
            method="OPTIONS",
            headers={"Origin": "https://a.test", "Access-Control-Request-Method": "GET"},
            want={"status": 204, "headers": {"Access-Control-Allow-Origin": "*"}},
        ),
    ),
    plain(
        "a-name-without-tls-has-that-of-its-wildcard",
        [
            site("*.shared.test", secret="shared", name="any-shared"),
            tls_secret("shared", _SHARED),
            site("named.shared.test", name="named-shared"),
            site("open.shared.test", {"ssl-redirect": "false"}, name="open-shared"),
            site("two.labels.shared.test", name="two-labels"),
        ],
        Ask(host="named.shared.test", path="/x", want={"status": 308, "location": "https://named.shared.test/x"}),
        Ask(host="named.shared.test", tls=True, want={"status": 200, "certificate": _SHARED}),
        Ask(host="open.shared.test", want={"status": 200}),
        Ask(host="two.labels.shared.test", want={"status": 200}),
    ),
    _in(
        _OTHER_PORTS,
        "what-a-client-forwards-is-dropped-unless-forwarded-headers-are-used",
        [site("dropped.test")],
        # compute-full-forwarded-for alone adds nothing; the address is that of the header of the load balancer.
        Ask(
            host="dropped.test",
            port=1080,
            headers={"X-Forwarded-For": "forged", "X-Client": _CLIENT},
            want=_seen(X_Forwarded_For=_CLIENT, X_Real_IP=_CLIENT, X_Original_Forwarded_For=_CLIENT),
        ),
        Ask(
            host="dropped.test",
            port=1080,
            headers={"X-Forwarded-For": "forged"},
            want={**_seen(X_Forwarded_For="$client_ip"), "backend_headers_absent": ["X-Original-Forwarded-For"]},
        ),
    ),
    _in(
        _BOTH,
        "forwarded-headers-behind-the-proxy-protocol",
        [site("both.test", {"ssl-redirect": "false"}, secret="both.test"), site_secret("both.test")],
        _proxied("both.test", 1234, port=1080, want=_seen(X_Forwarded_Port="1234", X_Forwarded_Proto="http")),
        _proxied("both.test", 1443, port=1443, tls=True, want=_seen(X_Forwarded_Port="443", X_Forwarded_Proto="https")),
        _proxied(
            "both.test",
            1234,
            port=1080,
            headers={"X-Forwarded-Port": "8443", "X-Forwarded-Host": "front.test"},
            want=_seen(X_Forwarded_Port="8443", X_Forwarded_Proto="http", X_Forwarded_Host="front.test"),
        ),
        _proxied(
            "both.test",
            443,
            port=1080,
            headers={"X-Forwarded-Proto": "http"},
            want=_seen(X_Forwarded_Port="443", X_Forwarded_Proto="https"),
        ),
    ),
    _in(
        _ANYBODY,
        "by-default-ipv4-addresses-alone-may-name-a-client",
        [site("anybody.test")],
        Ask(
            host="anybody.test",
            headers={"X-Forwarded-For": _CLIENT},
            want=_seen(X_Real_IP=_CLIENT, X_Forwarded_For=_CLIENT),
        ),
        Ask(
            host="anybody.test",
            address=NODE_V6,
            source=CLIENT_V6,
            headers={"X-Forwarded-For": _CLIENT},
            want=_seen(X_Real_IP=CLIENT_V6, X_Forwarded_For=CLIENT_V6),
        ),
    ),
    _in(
        _ANYBODY,
        "the-header-with-the-host-has-the-name-that-is-set",
        [site("host-header.test"), site("host-https.test", {"force-ssl-redirect": "true"})],
        Ask(
            host="host-header.test",
            headers={"X-Host-Outside": "front.test", "X-Forwarded-Host": "forged.test"},
            want=_seen(X_Forwarded_Host="front.test", X_Original_Forwarded_Host="forged.test"),
        ),
        Ask(
            host="host-https.test",
            path="/x",
            headers={"X-Host-Outside": "front.test", "X-Forwarded-Host": "forged.test"},
            want={"status": 308, "location": "https://front.test/x"},
        ),
    ),
    _in(
        _ANYBODY,
        "browsers-that-get-no-compressed-answers",
        [site("zipped.test"), site("typed.test", {"temporal-redirect": "/new", "temporal-redirect-code": "300"})],
        Ask(
            host="zipped.test",
            headers={"Accept-Encoding": "gzip", "User-Agent": "New"},
            want={"status": 200, "headers": {"Content-Encoding": "gzip"}},
        ),
        Ask(
            host="zipped.test",
            headers={"Accept-Encoding": "gzip", "User-Agent": "Old7"},
            want={"status": 200, "headers_absent": ["Content-Encoding"]},
        ),
        Ask(host="typed.test", want={"status": 300, "headers": {"Content-Type": "text/plain"}}),
    ),
    trusting(
        "each-forwarded-header-alone",
        [site("alone.test")],
        Ask(
            host="alone.test",
            headers={"X-Forwarded-Port": "8443"},
            want=_seen(X_Forwarded_Port="8443", X_Forwarded_Proto="http", X_Forwarded_Host="alone.test"),
        ),
        Ask(
            host="alone.test",
            headers={"X-Forwarded-Proto": "https"},
            want=_seen(X_Forwarded_Port="80", X_Forwarded_Proto="https", X_Forwarded_Scheme="https"),
        ),
        Ask(
            host="alone.test",
            headers={"X-Forwarded-Host": "front.test"},
            want=_seen(
                X_Forwarded_Port="80",
                X_Forwarded_Proto="http",
                X_Forwarded_Host="front.test",
                X_Original_Forwarded_Host="front.test",
            ),
        ),
        Ask(
            host="alone.test",
            headers={"X-Forwarded-For": "203.0.113.9"},
            want=_seen(
                X_Forwarded_For="203.0.113.9, $client_ip",
                X_Real_IP="203.0.113.9",
                X_Original_Forwarded_For="203.0.113.9",
            ),
        ),
    ),
]

# -- the header Server -----------------------------------------------------------------------------------------------


def _sets_server() -> bool:
    facts = gather_nginx(run)
    return HEADERS_MORE in facts.modules or HEADERS_MORE in facts.built_in


def _servers(stage: Stage) -> object:
    """No answer names its server, where nginx has the module for that."""
    wanted = [] if _sets_server() else ["nginx"]
    wrong = []
    for ask in (
        Ask(host="unnamed.test", headers=answering({"Server": "theirs"})),
        Ask(host="unnamed.test", path="/status/502"),
        Ask(host="nobody-at-all.test"),
        Ask(host="unnamed.test", tls=True, headers={"X-Long": "l" * 70000}),
    ):
        reply = stage.client.ask_one(ask)
        if reply.all("Server") != wanted or not reply.status:
            wrong.append(f"{ask.host}{ask.path}: {reply.status} {reply.all('Server')}")
    return wrong


def _named_server(stage: Stage) -> object:
    """An answer has one header Server: that of add-headers, where nginx has the module for that."""
    reply = stage.client.ask_one(_proxied("named.test", 80, port=1080, headers=answering({"Server": "theirs"})))
    return reply.all("Server") != (["own"] if _sets_server() else ["nginx"]) and f"{reply.headers}"


_SERVER = [
    plain("no-answer-names-its-server", [site("unnamed.test")], then=_servers),
    Scenario(name="one-header-server-as-set", world=_BOTH, documents=(site("named.test"),), then=_named_server),
]

SCENARIOS = (*_HOSTILE, *_OUTSIDE, *_SERVER)
