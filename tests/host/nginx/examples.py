"""Configurations written by hand, as small as nginx takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rulegen.languages.configuration import Configuration, SecretContent, digest_of

MAIN = """\
worker_processes {workers};
pid run/nginx.pid;
error_log logs/error.log;
worker_shutdown_timeout 20s;
events {{ worker_connections 64; }}
{top}
http {{
 access_log logs/access.log;
 client_body_temp_path run/body;
 proxy_temp_path run/proxy;
 fastcgi_temp_path run/fastcgi;
 uwsgi_temp_path run/uwsgi;
 scgi_temp_path run/scgi;
 server {{
  listen unix:run/status.sock;
  access_log off;
  location = /digest {{ return 200 "{digest}"; }}
  location /stub_status {{ stub_status; }}
 }}
 include hosts/*.conf;
}}
"""


def name(host: str) -> str:
    return f"hosts/{hashlib.sha256(host.encode()).hexdigest()[:16]}.conf"


def server(host: str, *, port: int | str = 8080, body: str = "", extra: str = "") -> str:
    answer = f'location / {{ return 200 "{body or host}"; }}'
    return f"server {{\n listen {port};\n server_name {host};\n {extra}\n {answer}\n}}\n"


def configuration(
    hosts: Mapping[str, str] | None = None,
    *,
    secrets: Mapping[str, SecretContent] | None = None,
    top: str = "",
    workers: int = 2,
) -> Configuration:
    """Return a configuration of hosts, name to text; one of them, on port 8080, where none are given."""
    texts = {"one.test": server("one.test")} if hosts is None else hosts
    files = {name(host): text for host, text in texts.items()}
    draft = {**files, "nginx.conf": MAIN.format(digest="", top=top, workers=workers)}
    digest = digest_of(draft, secrets or {})
    main = MAIN.format(digest=digest, top=top, workers=workers)
    return Configuration(files={"nginx.conf": main, **files}, secrets=secrets or {}, digest=digest)
