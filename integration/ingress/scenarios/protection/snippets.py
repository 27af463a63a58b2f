"""Snippets: what one may have kept out answers 503, and a harmless one leaves its Ingress served."""

from __future__ import annotations

from integration.ingress.cast import site
from integration.ingress.clients import Ask
from integration.ingress.scenarios.plain import plain

_PROTECTING = {
    "reload": ("server-snippet", "location /-/reload {\n  return 403;\n}"),
    "networks": ("server-snippet", "allow 192.0.2.0/24;\ndeny all;"),
    "key": ("server-snippet", 'if ($http_x_api_key != "secret") { return 403; }'),
    "password": ("configuration-snippet", "auth_basic 'Members';\nauth_basic_user_file /etc/nginx/users;"),
    "folders": ("server-snippet", "location ~ ^/(?:build|tests|config)/ { deny all; }"),
    "hidden": ("configuration-snippet", 'add_header X-A "a;b"; # harmless;\nden\\y all;'),
}

SCENARIOS = (
    plain(
        "snippets-that-protect",
        [site(f"snippet-{name}.test", {key: text}) for name, (key, text) in _PROTECTING.items()],
        *(
            Ask(host=f"snippet-{name}.test", path=path, tls=tls, want={"status": 503})
            for name in _PROTECTING
            for path in ("/", "/-/reload", "/config/x")
            for tls in (False, True)
        ),
    ),
    plain(
        "snippets-that-protect-a-host",
        [
            site("snippet-host.test"),
            site("snippet-host.test", {"server-snippet": "deny all;"}, path="/own", name="snippet-host-own"),
            site("snippet-path.test"),
            site("snippet-path.test", {"configuration-snippet": "deny all;"}, path="/own", name="snippet-path-own"),
        ],
        Ask(host="snippet-host.test", path="/", want={"status": 503}),
        Ask(host="snippet-host.test", path="/own", want={"status": 503}),
        Ask(host="snippet-path.test", path="/", want={"status": 200, "backend": "echo"}),
        Ask(host="snippet-path.test", path="/own", want={"status": 503}),
    ),
    plain(
        "snippets-that-are-harmless",
        [
            site("snippet-header.test", {"configuration-snippet": 'more_set_headers "X-A: deny all;";'}),
            site("snippet-times.test", {"server-snippet": "# return 403;\nproxy_read_timeout 5s;"}),
        ],
        Ask(host="snippet-header.test", want={"status": 200, "backend": "echo", "headers_absent": ["X-A"]}),
        Ask(host="snippet-times.test", want={"status": 200, "backend": "echo"}),
    ),
)
