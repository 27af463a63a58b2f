"""Hostile values of HAProxy's own notations, in every annotation: files and commands say what was meant."""

from __future__ import annotations

import pytest

from rulegen.compiler.ingress.haproxy import compile_haproxy
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.parser import read_command, read_map, read_sections
from rulegen.languages.haproxy.runtime import RuntimeState, state_of
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from tests.strategies.ingresses import WEB, ingress, options, rule, world

STATEMENT = "http-request return status 418"
VALUES = (
    f"a\n    {STATEMENT}",
    f"a\r    {STATEMENT}",
    f"a\r\n{STATEMENT}",
    f"a\x0b{STATEMENT}",
    f"a\u2028{STATEMENT}",
    f"a\u0085{STATEMENT}",
    "a\nbackend evil",
    "a\n\nglobal\n    user root",
    "a b",
    " a",
    "a ",
    "a  b",
    "a\tb",
    "a;show info",
    "a; set server b/s state maint",
    "a\\;b",
    "a\\",
    "\\",
    "\\\\1",
    "a\\x20b",
    "a\\nb",
    "a#b",
    "# a",
    "'",
    "a'b",
    f"a' {STATEMENT} '",
    '"',
    'a"b',
    f'a" {STATEMENT} "',
    "${HOME}",
    '"${HOME}"',
    "$HOME",
    "%[env(HOME)]",
    "%[src]",
    "%%[src]",
    "%",
    "%[",
    "%]",
    "%{+Q}o",
    "<<",
    "<< evil",
    "a <<\n.\n",
    "}",
    "} { always_true }",
    "!{ TRUE }",
    "if TRUE",
    "unless FALSE",
    "-- -i -m reg .*",
    "-f /etc/passwd",
    "src,map(/etc/passwd)",
    "str(a),lua.rulegen_path",
    "@1",
    "@master reload",
    "$(id)",
    "`id`",
    "a,b",
    "a)b(",
    "[verify none]",
    "*",
    "a\x00b",
    "\ufeffa",
    "a\x7fb",
)
COMPANIONS = {
    "auth-": {"auth-url": "http://auth.test/"},
    "auth-tls-": {"auth-tls-secret": "default/ca"},
    "canary-": {"canary": "true"},
    "cors-": {"enable-cors": "true"},
    "limit-": {"limit-rps": "100"},
    "mirror-": {"mirror-target": "http://mirror.test/"},
    "proxy-redirect-": {"proxy-redirect-from": "http://a.test/", "proxy-redirect-to": "/"},
    "proxy-ssl-": {"backend-protocol": "HTTPS"},
    "session-cookie-": {"affinity": "cookie"},
    "x-forwarded-prefix": {"rewrite-target": "/"},
}


def _world(value):
    objects = []
    for number, name in enumerate(ANNOTATIONS):
        companions = {
            key: text for start, more in COMPANIONS.items() if name.startswith(start) for key, text in more.items()
        }
        annotations = {**companions, name: value}
        objects.append(ingress(f"of-{name}", rule(f"of{number}.test"), annotations=annotations))
        if name.startswith("canary"):
            objects.append(ingress(f"main-{name}", rule(f"of{number}.test")))
    return world(*WEB, *objects)


def test_there_are_enough_values():
    assert len(set(VALUES)) >= 40


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_files_and_commands_say_what_was_meant(number):
    """Compiling compares all files with the values; here it is seen that these values add nothing of their own."""
    made = compile_haproxy(_world(VALUES[number]), options(), served=True).configuration

    sections = read_sections(made.files["haproxy.cfg"])
    kinds = [section.kind for section in sections]
    assert [kinds.count(kind) for kind in ("global", "defaults", "frontend")] == [1, 1, 1]
    assert set(kinds) <= {"global", "defaults", "frontend", "backend", "resolvers", "fcgi-app"}
    lines = [words for section in sections for words in section.lines]
    assert [words for words in lines if words[0] == "http-request" and "418" in words] == []
    assert [words for words in lines if words[0] == "user" and words[1:] == ("root",)] == []
    _check_commands(state_of(made), {path: secret.content for path, secret in made.secrets.items()})


def _check_commands(state, secrets):
    commands = changes(RuntimeState(maps=dict.fromkeys(state.maps, ())), state, (), secrets)
    added = [read_command(line) for line in commands.additions if line.startswith("add server")]
    wanted = [
        ["add", "server", "/".join(key), *_where(server), *server.options] for key, server in state.servers.items()
    ]
    assert added == wanted
    for change in commands.maps:
        read = []
        for text in change.adding(7):
            head, _, payload = text.partition(" <<\n")
            assert read_command(f"{head}\n") == ["add", "map", "@7", change.path]
            assert payload.endswith("\n\n")
            assert "\n\n" not in payload[:-2]
            read += read_map(payload)
        assert tuple(read) == state.maps[change.path]


def _where(server):
    yield f"[{server.address}]:{server.port}" if ":" in server.address else f"{server.address}:{server.port}"
