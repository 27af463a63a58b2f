"""What docs/ingress.md promises of files: their names, their comments, and what of a Secret is in them."""

from __future__ import annotations

import re

from tests.project.places import ROOT
from tests.strategies.ingresses import (
    WEB,
    certificate,
    compiled,
    config_map,
    ingress,
    key_pem,
    path,
    rule,
    secret,
    site,
    tls,
)

NAME = re.compile(r"nginx\.conf|(hosts|upstreams)/[0-9a-f]{16}\.conf")
SECRET_NAME = re.compile(r"secrets/[0-9a-f]{16,64}\.(pem|htpasswd)")
COMMENT = re.compile(r"(?m)^\s*#.*$")
PEM = re.compile(rb"(-----BEGIN ([A-Z ]+)-----\n[A-Za-z0-9+/=\n]+-----END \2-----\n)+")
MARK = "a-mark-of-a-tenant"


def everything() -> tuple:
    """Return objects that say a mark in every place that takes a free text."""
    noise = f"# {MARK}\nsubject={MARK}\n".encode()
    said = {"app_root": f"/{MARK}", "upstream_vhost": f"{MARK}.test", "auth_realm": f"# {MARK}", "auth_secret": "users"}
    return (
        *WEB,
        config_map(MARK, {"X-Own": MARK}),
        secret("cert", tls_crt=noise + certificate("site.test") + noise, tls_key=noise + key_pem() + noise),
        secret("users", auth=f"# {MARK}\n\nalice:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n".encode()),
        site(f"{MARK}.test", auth_type="basic", **said),
        ingress(MARK, rule("site.test", path(f"/{MARK}/#{MARK}")), tls=[tls("cert", "site.test")]),
    )


def test_no_name_of_a_file_holds_text_of_an_object():
    result = compiled(*everything()).configuration

    assert len(result.files) > 3
    assert len(result.secrets) > 1
    assert [each for each in result.files if not NAME.fullmatch(each)] == []
    assert [each for each in result.secrets if not SECRET_NAME.fullmatch(each)] == []


def test_no_comment_holds_text_of_an_object():
    """The only comments are those of the template."""
    result = compiled(*everything()).configuration
    ours = {
        line.strip() for line in COMMENT.findall((ROOT / "nginx_templates/nginx.conf.j2").read_text(encoding="utf-8"))
    }

    assert any(MARK in text for text in result.files.values())
    for name, text in result.files.items():
        assert {line.strip() for line in COMMENT.findall(text)} <= (ours if name == "nginx.conf" else set())


def test_of_a_secret_only_what_was_parsed_reaches_nginx():
    result = compiled(*everything()).configuration

    for name, file in result.secrets.items():
        assert MARK.encode() not in file.content
        assert PEM.fullmatch(file.content) if name.endswith(".pem") else file.content.count(b"\n") == 1
