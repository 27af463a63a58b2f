"""Small configurations of HAProxy."""

from __future__ import annotations

from rulegen.languages.configuration import Configuration, SecretContent, digest_of

MAIN = """\
global
    user haproxy
    group haproxy
    no strict-limits
    maxconn 100
    hard-stop-after 60s
    description {digest}
    set-var proc.digest str({digest})
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend ingress
    bind 0.0.0.0:{port}
    http-request return status 200 content-type text/plain string {body}
{more}
"""


def configuration(body: str, *, port: int = 8080, more: str = "") -> Configuration:
    """Return a configuration whose every answer is `body`."""
    secrets = {"secrets/users.cfg": SecretContent(b"")}

    def main(digest: str) -> str:
        return MAIN.format(digest=digest, body=body, port=port, more=more)

    digest = digest_of({"haproxy.cfg": main("")}, secrets)
    return Configuration(files={"haproxy.cfg": main(digest)}, secrets=secrets, digest=digest)
