"""A load balancer whose word is taken: what it forwards, settings for all hosts, and the access log."""

from __future__ import annotations

from collections.abc import Callable

from integration.ingress import objects
from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, Stage, World
from integration.ingress.identities import site_secret
from integration.ingress.scenarios.plain import answering

_TRUSTING = World(
    name="trusting",
    config={
        "use-forwarded-headers": "true",
        "proxy-real-ip-cidr": "192.168.50.100/32, 10.9.0.0/16",
        "compute-full-forwarded-for": "true",
        "proxy-add-original-uri-header": "true",
        "generate-request-id": "false",
        "add-headers": "default/more-answers",
        "proxy-set-headers": "default/more-requests",
        "hide-headers": "X-Secret, X-Version",
        "global-allowed-response-headers": "X-Custom,X-Own",
        "http-redirect-code": "301",
        "no-tls-redirect-locations": "/plain,/.well-known/acme-challenge",
        "use-gzip": "true",
        "gzip-min-length": "100",
        "limit-req-status-code": "429",
        "limit-conn-status-code": "430",
        "load-balance": "least_conn",
        "retry-non-idempotent": "true",
        "allow-backend-server-header": "true",
        "enable-underscores-in-headers": "true",
        "hsts": "false",
        "skip-access-log-urls": "/quiet/x,~^/status/",
        "log-format-upstream": (
            "$host|$request_method|$request_uri|$status|$namespace|$ingress_name|$service_name|$service_port"
            "|$proxy_upstream_name|$remote_addr|$upstream_addr|$upstream_status|$req_id"
            "|$proxy_alternative_upstream_name"
        ),
        "proxy-body-size": "2k",
    },
    documents=(
        objects.config_map("more-answers", {"X-Frame-Options": "DENY", "X-Team": "blue; v=1"}),
        objects.config_map("more-requests", {"X-Through": "rulegen", "X-Scheme": "gopher"}),
        objects.config_map("own-answers", {"X-Custom": "mine", "X-Own": 'say "hi" for $5'}),
        objects.config_map("forbidden-answers", {"X-Forbidden": "mine"}),
    ),
)


def trusting(
    name: str, documents: list[objects.Document], *asks: Ask, then: Callable[[Stage], object] | None = None
) -> Scenario:
    """Return a scenario of the world where a load balancer's word is taken."""
    return Scenario(name=name, world=_TRUSTING, documents=tuple(documents), asks=asks, then=then)


_FORWARDED = [
    trusting(
        "forwarded-headers-of-who-is-trusted",
        [site("lb.test"), site("lb-forced.test", {"force-ssl-redirect": "true"})],
        Ask(
            host="lb.test",
            path="/a?b",
            headers={
                "X-Forwarded-For": "203.0.113.9, 10.9.1.1",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "front.test",
                "X-Forwarded-Port": "8443",
            },
            want={
                "backend_sees": {
                    "host": "front.test",
                    "headers": {
                        "X-Real-IP": "203.0.113.9",
                        "X-Forwarded-For": "203.0.113.9, 10.9.1.1, 192.168.50.100",
                        "X-Forwarded-Proto": "https",
                        "X-Forwarded-Host": "front.test",
                        "X-Forwarded-Port": "8443",
                        "X-Original-URI": "/a?b",
                        "X-Through": "rulegen",
                        "X-Scheme": "gopher",
                    },
                },
                "backend_headers_absent": ["X-Request-ID"],
            },
        ),
        Ask(
            host="lb.test",
            source="192.168.50.101",
            headers={"X-Forwarded-For": "203.0.113.9"},
            want={"backend_sees": {"headers": {"X-Real-IP": "192.168.50.101"}}},
        ),
        Ask(host="lb-forced.test", headers={"X-Forwarded-Proto": "https"}, want={"status": 200}),
        Ask(host="lb-forced.test", headers={"X-Forwarded-Proto": "http"}, want={"status": 301}),
        Ask(
            host="lb-forced.test",
            path="/x",
            headers={"X-Forwarded-Host": "front.test"},
            want={"status": 301, "location": "https://front.test/x"},
        ),
        # What several have written is a list, whose first is what the client asked for.
        Ask(
            host="lb-forced.test",
            path="/x",
            headers={"X-Forwarded-Host": "front.test:8080, middle.test"},
            want={"status": 301, "location": "https://front.test/x"},
        ),
        Ask(
            host="lb.test",
            headers={"X-Forwarded-Host": "front.test:8080, middle.test", "X-Forwarded-Proto": "https"},
            want={"backend_sees": {"host": "front.test:8080", "headers": {"X-Forwarded-Host": "front.test:8080"}}},
        ),
        Ask(host="lb.test", headers={"x_under_score": "1"}, want={"backend_sees": {"headers": {"x_under_score": "1"}}}),
    ),
    trusting(
        "forwarded-headers-of-who-is-not-trusted-mean-nothing",
        [site("stranger.test"), site("stranger-forced.test", {"force-ssl-redirect": "true"})],
        Ask(
            host="stranger.test",
            source="192.168.50.101",
            headers={
                "X-Forwarded-For": "203.0.113.9",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "front.test",
                "X-Forwarded-Port": "8443",
            },
            want={
                "backend_sees": {
                    "host": "stranger.test",
                    "headers": {
                        "X-Real-IP": "192.168.50.101",
                        "X-Forwarded-For": "192.168.50.101",
                        "X-Forwarded-Proto": "http",
                        "X-Forwarded-Host": "stranger.test",
                        "X-Forwarded-Port": "80",
                        "X-Original-Forwarded-Host": "front.test",
                    },
                },
            },
        ),
        Ask(
            host="stranger-forced.test",
            path="/x",
            source="192.168.50.101",
            headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "front.test"},
            want={"status": 301, "location": "https://stranger-forced.test/x"},
        ),
        # Who is trusted is asked about the neighbour, not about an address that it names.
        Ask(
            host="stranger-forced.test",
            headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"},
            want={"status": 200},
        ),
    ),
    trusting(
        "headers-of-answers",
        [
            site("answers.test"),
            site("own-answers.test", {"custom-headers": "default/own-answers"}),
            site("forbidden-answers.test", {"custom-headers": "default/forbidden-answers"}),
        ],
        Ask(
            host="answers.test",
            headers=answering({"X-Secret": "1", "X-Version": "2", "X-Frame-Options": "ALLOW", "Server": "own"}),
            want={
                "headers": {"X-Frame-Options": "DENY", "X-Team": "blue; v=1", "Server": "own"},
                "header_count": {"X-Frame-Options": 1},
                "headers_absent": ["X-Secret", "X-Version"],
            },
        ),
        Ask(
            host="own-answers.test",
            path="/status/500",
            headers=answering({"X-Custom": "theirs"}),
            want={
                "headers": {"X-Custom": "mine", "X-Own": 'say "hi" for $5', "X-Team": "blue; v=1"},
                "header_count": {"X-Custom": 1, "X-Team": 1},
            },
        ),
        Ask(host="own-answers.test", headers=answering({"X-Secret": "1"}), want={"headers_absent": ["X-Secret"]}),
        Ask(host="forbidden-answers.test", want={"status": 503}),
    ),
    trusting(
        "redirects-as-set",
        [
            site("set-redirect.test", secret="set-redirect.test"),
            site("set-redirect.test", path="/plain", name="set-redirect-plain"),
            site("www.set-code.test", {"from-to-www-redirect": "true"}),
            site_secret("set-redirect.test"),
        ],
        Ask(host="set-redirect.test", want={"status": 301}),
        Ask(host="set-code.test", want={"status": 301, "location": "http://www.set-code.test"}),
        Ask(host="set-redirect.test", path="/plain", want={"status": 200}),
        Ask(host="set-redirect.test", tls=True, want={"headers_absent": ["Strict-Transport-Security"]}),
    ),
    trusting(
        "gzip",
        [site("gzip.test"), site("gzip-text.test", service="mirror")],
        Ask(
            host="gzip.test",
            headers={"Accept-Encoding": "gzip"},
            want={"status": 200, "headers": {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}},
        ),
        Ask(host="gzip.test", want={"status": 200, "headers_absent": ["Content-Encoding"]}),
    ),
    trusting(
        "limits-as-set",
        [
            site("set-limit.test", {"limit-rps": "1", "limit-burst-multiplier": "1"}),
            site("set-body.test"),
            site("set-connections.test", {"limit-connections": "1"}),
        ],
        Ask(host="set-limit.test", times=8, at_once=True, want={"statuses": [200, 429]}),
        Ask(host="set-connections.test", path="/sleep/0.5", times=4, at_once=True, want={"statuses": [200, 430]}),
        Ask(host="set-body.test", method="POST", body=bytes(2049), want={"status": 413}),
    ),
    trusting(
        "sent-again-as-set",
        [site("again.test", service="hangs-up")],
        Ask(host="again.test", method="POST", body=b"x", times=10, want={"status": 200}),
    ),
]


def _logged(stage: Stage) -> object:
    """Each request has a line with what it was part of, but for those that are not to have one."""
    for path in ("/quiet/x", "/quiet/x?y", "/loud/x", "/status/404"):
        stage.client.ask_one(Ask(host="log.test", path=path))
    stage.client.ask_one(Ask(host="log-off.test", path="/off"))
    stage.client.ask_one(Ask(host="log-off-none.test", path="/off"))
    stage.client.ask_one(Ask(host="log-of-nobody.test", path="/nobody"))
    stage.client.ask_one(Ask(host="log-scripts.test", path="/script"))
    stage.client.ask_one(Ask(host="log-none.test", path="/none"))
    stage.client.ask_one(Ask(host="log.test", path="/end"))
    lines = [line.split("|") for line in stage.log("|/end|") if "log" in line.split("|")[0]]
    paths = [line[2] for line in lines]
    if paths[-5:] != ["/quiet/x?y", "/loud/x", "/script", "/none", "/end"]:
        return f"logged: {lines}"
    loud, script, none = lines[-4:-1]
    wanted = ["log.test", "GET", "/loud/x", "200", "default", "log-ingress", "echo", "80", "default-echo-80"]
    if loud[:9] != wanted or loud[9] != "192.168.50.100":
        return f"logged: {loud}"
    if script[3:9] != ["200", "default", "log-scripts.test", "scripts", "80", "default-scripts-80"]:
        return f"logged: {script}"
    return (none[3:6] != ["503", "default", "log-none.test"]) and f"logged: {none}"


_TRIED = {"canary": "true", "canary-by-header": "X-Try"}


def _logged_sides(stage: Stage) -> object:
    """A request has the main Service in its line, and the canary's if that answered."""
    wanted = []
    for host, main, other in (
        ("log-main.test", "echo", "other"),
        ("log-calls.test", "calls", "safe-calls"),
        ("log-sticky.test", "echo", "other"),
    ):
        for header, canary in (("never", ""), ("always", f"default-{other}-80")):
            stage.client.ask_one(Ask(host=host, path=f"/{header}", headers={"X-Try": header}))
            wanted.append([host, f"/{header}", main, f"default-{main}-80", canary])
    stage.client.ask_one(Ask(host="log-main.test", path="/sides-end"))
    lines = [line.split("|") for line in stage.log("|/sides-end|") if "|/never|" in line or "|/always|" in line]
    sides = [[line[0], line[2], line[6], line[8], line[-1]] for line in lines]
    return sides[-len(wanted) :] != wanted and f"logged: {sides}"


_LOGS = [
    trusting(
        "access-log",
        [
            site("log.test", name="log-ingress"),
            site("log-off.test", {"enable-access-log": "false"}),
            site("log-none.test", service="empty"),
            site("log-off-none.test", {"enable-access-log": "false"}, "empty"),
            site("log-scripts.test", {"backend-protocol": "FCGI"}, "scripts"),
        ],
        then=_logged,
    ),
    trusting(
        "access-log-of-canaries",
        [
            site("log-main.test"),
            site("log-main.test", _TRIED, "other", name="log-canary"),
            site("log-calls.test", {"backend-protocol": "GRPC"}, "calls"),
            site("log-calls.test", _TRIED, "safe-calls", name="log-calls-canary"),
            site("log-sticky.test", {"affinity": "cookie", "affinity-mode": "persistent"}),
            site("log-sticky.test", _TRIED, "other", name="log-sticky-canary"),
        ],
        then=_logged_sides,
    ),
]

SCENARIOS = (*_FORWARDED, *_LOGS)
