"""What is spoken: with backends, HTTP, TLS, gRPC, FastCGI and websockets; with clients, TLS and HTTP/2."""

from __future__ import annotations

import base64
import shlex
import ssl

from integration.ingress import objects
from integration.ingress.asking import basic_auth
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import CLIENT_V6, NODE_V6, Scenario, Stage
from integration.ingress.identities import authority_secret, pair, site_secret, tls_secret
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain

_CA = pair("ca")
_GATEWAY = tls_secret("gateway", pair("gateway", _CA), _CA)
_STRANGERS = tls_secret("strangers", pair("gateway", _CA), pair("ca-of-strangers"))
_VERIFIED = {
    "backend-protocol": "HTTPS",
    "proxy-ssl-secret": "default/gateway",
    "proxy-ssl-verify": "on",
    "proxy-ssl-name": "backend.internal",
    "proxy-ssl-server-name": "on",
}

_BACKENDS = [
    plain(
        "backend-https",
        [
            site("https.test", {"backend-protocol": "HTTPS"}, "safe"),
            site("auto.test", {"backend-protocol": "AUTO_HTTP", "ssl-redirect": "false"}, "safe"),
            site("verified.test", _VERIFIED, "knowing"),
            site("wrong-name.test", {**_VERIFIED, "proxy-ssl-name": "other.internal"}, "knowing-name"),
            site("wrong-ca.test", {**_VERIFIED, "proxy-ssl-secret": "default/strangers"}, "knowing-ca"),
            site(
                "old-tls.test",
                {**_VERIFIED, "proxy-ssl-protocols": "TLSv1.2", "proxy-ssl-ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"},
                "knowing-old",
            ),
            _GATEWAY,
            _STRANGERS,
        ],
        Ask(host="https.test", want={"status": 200, "backend": "safe", "backend_tls": True}),
        Ask(host="auto.test", want={"status": 200, "backend_tls": False}),
        Ask(host="auto.test", tls=True, want={"status": 200, "backend_tls": True}),
        Ask(
            host="verified.test",
            path="/a?b",
            want={"status": 200, "json": {"client": "gateway", "asked_for": "backend.internal", "path": "/a?b"}},
        ),
        Ask(host="wrong-name.test", want={"status": 502}),
        Ask(host="wrong-ca.test", want={"status": 502}),
        Ask(
            host="old-tls.test",
            want={"status": 200, "json": {"version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES256-GCM-SHA384"}},
        ),
    ),
    plain(
        "connections-are-kept-for-what-they-speak",
        [
            site("mixed-http.test", service="mixed"),
            site("mixed-https.test", {"backend-protocol": "HTTPS"}, "mixed"),
            site("mixed-auto.test", {"backend-protocol": "AUTO_HTTP"}, "mixed"),
            site("mixed-verified.test", _VERIFIED, "mixed"),
            site("mixed-auth.test", {"auth-url": "https://mixed.default.svc.cluster.local:80/"}, "mixed"),
        ],
        *(
            Ask(host=f"mixed-{name}.test", tls=tls, times=6, want={"status": status, **more})
            for _ in range(2)
            for name, tls, status, more in (
                ("http", False, 200, {"backend_tls": False}),
                ("https", False, 200, {"backend_tls": True}),
                ("verified", False, 502, {}),
                ("auto", False, 200, {"backend_tls": False}),
                ("auto", True, 200, {"backend_tls": True}),
                ("auth", False, 200, {"backend_tls": False}),
            )
        ),
    ),
    plain(
        "connections-that-a-backend-is-told-to-close-are-not-kept",
        [
            site("silent.test", service="silent"),
            site("silent-close.test", {"connection-proxy-header": "close"}, "silent"),
            site("silent-old.test", {"proxy-http-version": "1.0"}, "silent"),
        ],
        *(
            Ask(host=host, method="POST", body=b"pay", times=6, want={"statuses": [200]})
            for host in ("silent-close.test", "silent-old.test", "silent.test")
        ),
    ),
    plain(
        "fastcgi-clients-prove-who-they-are",
        [
            site(
                "scripts-asked.test",
                {
                    "backend-protocol": "FCGI",
                    "auth-url": "http://auth.default.svc.cluster.local/",
                    "auth-response-headers": "X-Auth-User, X-Nobody",
                },
                "scripts",
            ),
            site(
                "scripts-basic.test",
                {"backend-protocol": "FCGI", "auth-type": "basic", "auth-secret": "fcgi"},
                "scripts",
            ),
            objects.secret("fcgi", "Opaque", {"auth": b"jane:{PLAIN}pass\n"}),
        ],
        Ask(
            host="scripts-asked.test",
            headers={"X-Auth-User": "forged", "X-Nobody": "forged", "Authorization": "Bearer x"},
            want={
                "status": 200,
                "json": {"HTTP_X_AUTH_USER": "jane", "HTTP_X_NOBODY": "~^(None)?$", "HTTP_AUTHORIZATION": "Bearer x"},
            },
        ),
        Ask(
            host="scripts-basic.test",
            headers=basic_auth("jane", "pass"),
            want={"status": 200, "json": {"HTTP_AUTHORIZATION": "~^(None)?$"}},
        ),
    ),
    plain(
        "backend-fastcgi",
        [
            site(
                "scripts.test",
                {"backend-protocol": "FCGI", "fastcgi-index": "index.php", "fastcgi-params-configmap": "parameters"},
                "scripts",
            ),
            objects.config_map(
                "parameters", {"SCRIPT_FILENAME": "/srv/app$fastcgi_script_name", "APP_MODE": 'it\'s "on"'}
            ),
        ],
        Ask(
            host="scripts.test",
            path="/a/?b=c",
            method="POST",
            body=b"body",
            headers={"X-One": "1", "Proxy": "evil"},
            times=20,
            want={
                "statuses": [200],
                "json": {
                    "SCRIPT_FILENAME": "/srv/app/a/index.php",
                    "QUERY_STRING": "b=c",
                    "REQUEST_METHOD": "POST",
                    "CONTENT_LENGTH": "4",
                    "REQUEST_URI": "/a/?b=c",
                    "APP_MODE": 'it\'s "on"',
                    "REMOTE_ADDR": "192.168.50.100",
                    "HTTP_X_ONE": "1",
                    "HTTP_PROXY": "None",
                },
            },
        ),
        Ask(host="scripts.test", path="/x.php", want={"json": {"SCRIPT_FILENAME": "/srv/app/x.php"}}),
    ),
]


def _call(stage: Stage, host: str) -> str:
    """Return what comes of a gRPC call by another client."""
    message = base64.b64encode(b"\0\0\0\0\5hello").decode()
    command = (
        f"base64 -d <<<{message} | curl -sk --http2 --max-time 8 -D - --data-binary @- "
        f"-H 'content-type: application/grpc' -H 'te: trailers' "
        f"--resolve {host}:443:192.168.50.10 {shlex.quote(f'https://{host}/package.Service/Call')}"
    )
    done = stage.lab.hosts["client"].run(["bash", "-c", command])
    return f"{done.code}\n{done.stdout}\n{done.stderr}"


def _calls(stage: Stage) -> object:
    for host in ("calls.test", "safe-calls.test"):
        reported = _call(stage, host)
        if not all(text in reported for text in ("HTTP/2 200", "hello", "grpc-status: 0", "x-said: well")):
            return f"{host}: {reported}"
    return None


def _upgrade(stage: Stage) -> object:
    """Both ends of a websocket hear each other, over TLS too."""
    for tls in (False, True):
        ask = Ask(
            host="sockets.test",
            tls=tls,
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},  # without a key, every byte comes back
        )
        with stage.client.open(ask) as connection:
            connection.sendall(ask.wire())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            connection.sendall(b"ping")
            echo = connection.recv(4096)
        if not head.startswith(b"HTTP/1.1 101") or b"upgrade: websocket" not in head.lower() or echo != b"ping":
            return f"{head!r} {echo!r}"
    return None


_STREAMS = [
    plain(
        "backend-grpc",
        [
            site("calls.test", {"backend-protocol": "GRPC"}, "calls", secret="calls.test"),
            site("safe-calls.test", {"backend-protocol": "GRPCS"}, "safe-calls", secret="safe-calls.test"),
            site_secret("calls.test"),
            site_secret("safe-calls.test"),
        ],
        then=_calls,
    ),
    plain("websockets", [site("sockets.test", {"proxy-read-timeout": "5"})], then=_upgrade),
]

_WILD = pair("wild", names=("*.wild.test",))
_OLD = pair("old", names=("old.test",), age_days=100)


def _unlisted(host: str, secret: str) -> Document:
    """Return an Ingress whose TLS names no host."""
    made = site(host, secret=secret)
    del made["spec"]["tls"][0]["hosts"]
    return made


def _hostless() -> Document:
    """Return an Ingress for a path of every host, with a certificate."""
    made = site("every.test", secret="every.test", path="/every")
    del made["spec"]["rules"][0]["host"]
    return made


def _coalesced(stage: Stage) -> object:
    """Over one connection of HTTP/2, a host that asks for a certificate is not reached by the name of another."""
    command = ["curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
    command += ["--resolve", "mtls-any.test:443:192.168.50.10", "https://mtls-any.test/", "-H", "Host: mtls.test"]
    output = stage.lab.hosts["client"].run(command).stdout
    return output != "421 2" and output


def _have_the_default_certificate(stage: Stage) -> object:
    """Hosts whose Secrets are of no use show the node's own certificate, and not that of the rule without host."""
    made_up = (stage.lab.node.outside() / "default.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    shown = {
        name: stage.client.ask_one(Ask(host=name, tls=True)) for name in ("foreign.test", "missing.test", "broken.test")
    }
    return [name for name, entry in shown.items() if entry.certificate != ssl.PEM_cert_to_DER_cert(made_up)]


_CLIENTS = [
    plain(
        "certificate-of-every-other-host",
        [_hostless(), site_secret("every.test")],
        Ask(
            host="every.test",
            path="/every",
            tls=True,
            want={"status": 200, "certificate": pair("every.test", names=("every.test",))},
        ),
        Ask(host="whoever.test", path="/every", tls=True, want={"status": 200}),
        Ask(host="whoever.test", path="/other", tls=True, want={"status": 404}),
    ),
    plain("http2-names-are-not-mixed", [], then=_coalesced),
    plain(
        "certificates",
        [
            site("a.wild.test", secret="wild"),
            site("*.wild.test", secret="wild", name="wild"),
            tls_secret("wild", _WILD),
            site("old.test", secret="old"),
            tls_secret("old", _OLD),
            _unlisted("unlisted.test", "unlisted.test"),
            site_secret("unlisted.test"),
            site("foreign.test", secret="wild"),
            site("missing.test", secret="nothing"),
            site("broken.test", secret="broken"),
            objects.secret("broken", "kubernetes.io/tls", {"tls.crt": b"x", "tls.key": b"y"}),
        ],
        Ask(host="a.wild.test", tls=True, want={"status": 200, "certificate": _WILD}),
        Ask(host="b.wild.test", tls=True, want={"status": 200, "certificate": _WILD}),
        Ask(host="B.WILD.TEST", tls=True, want={"status": 200, "certificate": _WILD}),
        Ask(host="old.test", tls=True, want={"status": 200, "certificate": _OLD}),
        Ask(
            host="unlisted.test",
            tls=True,
            want={"status": 200, "certificate": pair("unlisted.test", names=("unlisted.test",))},
        ),
        *(Ask(host=f"{name}.test", tls=True, want={"status": 200}) for name in ("foreign", "missing", "broken")),
        *(Ask(host=f"{name}.test", want={"status": 308}) for name in ("foreign", "missing", "broken")),
        then=_have_the_default_certificate,
    ),
    plain(
        "tls-of-one-host",
        [
            site("usual-tls.test", secret="usual-tls.test"),
            site_secret("usual-tls.test"),
            site("strict.test", {"ssl-ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}, secret="strict.test"),
            site_secret("strict.test"),
            site("strict-default.test", {"ssl-ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}),
        ],
        Ask(host="usual-tls.test", tls=True, want={"tls": ["TLSv1.3", "", ""]}),
        Ask(host="usual-tls.test", tls=True, newest="TLSv1_2", want={"tls": ["TLSv1.2", "GCM", ""]}),
        Ask(host="usual-tls.test", tls=True, newest="TLSv1_2", ciphers="ECDHE-ECDSA-AES128-SHA", want={"fails": True}),
        Ask(
            host="strict.test",
            tls=True,
            newest="TLSv1_2",
            ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
            want={"fails": True},
        ),
        Ask(host="strict.test", tls=True, newest="TLSv1_2", want={"tls": ["TLSv1.2", "AES256-GCM-SHA384", ""]}),
        Ask(host="usual-tls.test", tls=True, alpn=("http/1.1",), want={"tls": ["", "", "http/1.1"]}),
    ),
    plain(
        "http2",
        [site("h2.test", secret="h2.test"), site_secret("h2.test")],
        then=lambda stage: (
            "HTTP/2 200"
            not in (
                output := stage.lab.hosts["client"]
                .run(["curl", "-ski", "--http2", "--resolve", "h2.test:443:192.168.50.10", "https://h2.test/"])
                .stdout
            )
            and output
        ),
    ),
    plain(
        "clients-by-ipv6",
        [
            site("six.test", {"whitelist-source-range": f"{CLIENT_V6}/128"}),
            site("not-six.test", {"whitelist-source-range": "fd00:99::/64"}),
        ],
        Ask(
            host="six.test",
            address=NODE_V6,
            source=CLIENT_V6,
            want={"status": 200, "backend_sees": {"headers": {"X-Real-IP": CLIENT_V6}}},
        ),
        Ask(host="not-six.test", address=NODE_V6, source=CLIENT_V6, want={"status": 403}),
        Ask(host="six.test", want={"status": 403}),
    ),
]

_BOTH = [
    plain(
        "authorities-are-not-mixed",
        [
            site("mtls-two.test", {"auth-tls-secret": "default/two"}, secret="mtls-two.test"),
            site_secret("mtls-two.test"),
            authority_secret("two", _CA, pair("ca-of-strangers")),
        ],
        Ask(host="mtls-two.test", tls=True, identity=pair("dora", _CA), want={"status": 200}),
        Ask(host="mtls-two.test", tls=True, identity=pair("alice", pair("ca-of-strangers")), want={"status": 200}),
        Ask(host="mtls-two.test", tls=True, identity=pair("eve", pair("ca-of-nobody")), want={"status": 400}),
    ),
]

_EVERYTHING = {
    "affinity": "cookie",
    "auth-response-headers": "X-Auth-User",
    "auth-signin": "https://login.test/",
    "auth-url": "http://auth.default.svc.cluster.local/",
    "client-body-buffer-size": "16k",
    "connection-proxy-header": "keep-alive",
    "cors-allow-origin": "https://a.test, https://*.b.test",
    "custom-headers": "default/all-headers",
    "custom-http-errors": "404,502",
    "default-backend": "errors",
    "denylist-source-range": "203.0.113.9",
    "enable-cors": "true",
    "limit-connections": "100",
    "limit-rate": "100",
    "limit-rate-after": "100",
    "limit-rpm": "1000",
    "limit-rps": "100",
    "proxy-body-size": "2m",
    "proxy-buffer-size": "8k",
    "proxy-buffering": "on",
    "proxy-buffers-number": "8",
    "proxy-connect-timeout": "3",
    "proxy-cookie-domain": "a.test b.test",
    "proxy-cookie-path": "/a /b",
    "proxy-http-version": "1.1",
    "proxy-max-temp-file-size": "10m",
    "proxy-next-upstream": "error timeout http_502 http_504 invalid_header",
    "proxy-next-upstream-timeout": "10",
    "proxy-next-upstream-tries": "2",
    "proxy-read-timeout": "20",
    "proxy-redirect-from": "default",
    "proxy-redirect-to": "default",
    "proxy-request-buffering": "off",
    "proxy-send-timeout": "20",
    "proxy-ssl-name": "backend.internal",
    "proxy-ssl-protocols": "TLSv1.2 TLSv1.3",
    "proxy-ssl-server-name": "on",
    "satisfy": "any",
    "upstream-vhost": "inside.test",
    "whitelist-source-range": "192.168.50.0/24",
}


def _everything(protocol: str, service: str) -> Scenario:
    host = f"all-{protocol.lower().replace('_', '-')}.test"
    given = {**_EVERYTHING, "backend-protocol": protocol}
    canary = {"canary": "true", "canary-by-header": "X-Try", "canary-weight": "1"}
    documents = [
        site(host, given, service),
        site(f"canary-{host}", given, service),
        site(f"canary-{host}", canary, service, name=f"second-{host}"),
        site(
            f"re-{host}", {**given, "rewrite-target": "/$1"}, service, path="/(.*)", path_type="ImplementationSpecific"
        ),
    ]

    def served(stage: Stage) -> object:
        lines = [line for line in stage.output.splitlines() if host in line]
        return [line for line in lines if "quarantine" in line or "reject" in line]

    asks = [
        Ask(host=entry, path="/x", want={"status": 200, "headers": {"X-All": "all"}})
        for entry in (host, f"canary-{host}", f"re-{host}")
    ]
    return plain(f"everything-at-once-{protocol.lower()}", documents, *asks, then=served)


_ALL = [
    plain("what-everything-needs", [objects.config_map("all-headers", {"X-All": "all"})]),
    _everything("HTTP", "echo"),
    _everything("HTTPS", "safe"),
    _everything("AUTO_HTTP", "safe"),
    _everything("GRPC", "calls"),
    _everything("GRPCS", "safe-calls"),
    _everything("FCGI", "scripts"),
]

SCENARIOS = (*_ALL, *_BACKENDS, *_STREAMS, *_CLIENTS, *_BOTH)
