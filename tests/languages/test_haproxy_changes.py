"""Changes for HAProxy's socket: what is read back equals the typed values; additions come before removals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.languages.configuration import Configuration, SecretContent
from rulegen.languages.haproxy.commands import MOST_PAYLOAD, changes
from rulegen.languages.haproxy.parser import UnreadableError, read_command, read_map
from rulegen.languages.haproxy.parts import entry_changes
from rulegen.languages.haproxy.reports import ListedNames, read_map_entries, read_names, read_servers
from rulegen.languages.haproxy.runtime import (
    RuntimeServer,
    RuntimeState,
    ServerKey,
    fingerprint,
    holds,
    state_of,
    structure_of,
)
from rulegen.languages.haproxy.text import UnwritableError
from tests.strategies.ingresses import certificate

HOSTILE = (
    *("a;b", ";", "a\\b", "\\", "\\;", "<<", "a<<b", "x#", "'x", '"x"', "'", "%[env(HOME)]", "${HOME}", "$x", "x y"),
    *(
        "x  y",
        "-",
        "--",
        "@1",
        "é",
        "日本",
        "x\\ y",
        "show info",
        "a;show info",
        "\\n",
        "*",
        "{}",
        "`id`",
        "$(id)",
        "~",
    ),
)
KEY = ServerKey("b1", "s1")
CONFIG = """\
global
    description 0
frontend ingress
    bind 0.0.0.0:80
backend b1
    balance roundrobin
    server s1 10.0.0.1:80 sni 'str(a b)' backup
    server s2 [fd00:0::1]:81
"""


def configuration(config: str = CONFIG, **files: str) -> Configuration:
    return Configuration(files={"haproxy.cfg": config, **files}, digest="0")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_word_is_one_word_of_one_command(text):
    after = RuntimeState(servers={KEY: RuntimeServer("10.0.0.1", 80, options=("sni", text))})
    if text.startswith("<<"):
        with pytest.raises(UnwritableError):
            changes(RuntimeState(), after, (), {})
        return
    wanted = changes(RuntimeState(), after, (), {})
    assert [read_command(line) for line in wanted.additions] == [
        ["add", "server", "b1/s1", "10.0.0.1:80", "sni", text],
        ["set", "server", "b1/s1", "state", "ready"],
    ]


def test_hostile_entries_of_maps_are_lines_of_their_own():
    entries = tuple((f"k{number}", text) for number, text in enumerate(HOSTILE))
    keys = tuple((text, "v") for text in HOSTILE if " " not in text)
    after = RuntimeState(maps={"maps/a.map": entries + keys})
    (written,) = changes(RuntimeState(maps={"maps/a.map": ()}), after, (), {}).maps
    command, payload, end = "".join(written.adding(7)).partition("\n")[0], "".join(written.payloads), "\n"
    assert command == "add map @7 maps/a.map <<"
    assert read_map(payload) == list(entries + keys)
    assert "".join(written.adding(7)) == f"{command}\n{payload}{end}"


@pytest.mark.parametrize("text", ["a\nshow info", "a\rb", "\x00", "", "\ud800"])
def test_what_would_end_a_line_is_not_written(text):
    state = RuntimeState(maps={"maps/a.map": ()})
    with pytest.raises(UnwritableError):
        changes(state, RuntimeState(maps={"maps/a.map": (("key", text),)}), (), {})


def test_a_large_map_is_sent_in_parts_that_fit():
    entries = tuple((f"key{number:06}", "value") for number in range(5000))
    (written,) = changes(RuntimeState(maps={"maps/a.map": ()}), RuntimeState(maps={"maps/a.map": entries}), (), {}).maps
    assert all(len(part) <= MOST_PAYLOAD for part in written.payloads)
    assert read_map("".join(written.payloads)) == list(entries)


def test_names_of_a_certificate_are_added_before_the_old_ones_are_removed():
    pem = certificate("a.test")
    before = RuntimeState(names=(("secrets/a.pem", ()),), certificates={"secrets/a.pem": "1"})
    after = replace(
        before,
        names=(("secrets/a.pem", ()), ("secrets/b.pem", ("b.test",))),
        certificates={"secrets/a.pem": "1", "secrets/b.pem": fingerprint(pem)},
    )
    listed = (ListedNames("secrets/a.pem", (), 1),)
    wanted = changes(before, after, listed, {"secrets/b.pem": pem})
    assert wanted.additions == (
        "new ssl cert secrets/b.pem\n",
        f"set ssl cert secrets/b.pem <<\n{pem.decode()}\n",
        "commit ssl cert secrets/b.pem\n",
        "add ssl crt-list certificates.list <<\nsecrets/b.pem b.test\n\n",
    )
    assert wanted.removals == ()
    back = changes(after, before, (*listed, ListedNames("secrets/b.pem", ("b.test",), 2)), {})
    assert back.removals == ("del ssl crt-list certificates.list secrets/b.pem:2\n", "del ssl cert secrets/b.pem\n")


def test_an_empty_line_of_a_certificate_does_not_end_its_payload():
    pem = b"-----BEGIN CERTIFICATE-----\n\nAAAA\n-----END CERTIFICATE-----\n\n"
    after = RuntimeState(names=(("secrets/a.pem", ()),), certificates={"secrets/a.pem": "1"})
    sent = changes(RuntimeState(), after, (), {"secrets/a.pem": pem}).additions[1]
    assert sent.count("\n\n") == 1
    assert sent.endswith("\n\n")


KEYS = st.sampled_from(["h", "h/", "h/a", "h/a/", "h/a/b", "h/c", "g/"])
MAP = st.dictionaries(KEYS, st.sampled_from(["b1", "b2", "b3 c"]))


def _executed(entries: dict[str, str], command: str) -> Iterator[dict[str, str]]:
    """Yield a map after each step of a command, as HAProxy executes it."""
    first, _, payload = command.partition(" <<\n")
    if payload:
        assert read_command(f"{first}\n") == ["add", "map", "m"]
        for key, value in read_map(payload):
            entries = {**entries, key: value}
            yield entries
        return
    what, _, _, key, *value = read_command(first)
    assert key in entries
    kept = {other: text for other, text in entries.items() if other != key}
    yield {**kept, key: value[0]} if what == "set" else kept


@given(before=MAP, after=MAP)
def test_while_single_entries_change_a_request_finds_old_or_new(before, after):
    changed = entry_changes(sorted(before.items()), sorted(after.items()))
    (made,) = changes(RuntimeState(), RuntimeState(), (), {}, {"m": changed}).maps

    def used(entries: dict[str, str], request: str) -> str | None:
        return entries.get(max((key for key in entries if request.startswith(key)), key=len, default=""))

    now = before
    for command in made.commands:
        for step in _executed(now, command):
            now = step
            for request in ("h", "h/x", "h/a/b/c", "h/a/x", "h/c", "g/"):
                assert used(now, request) in {used(before, request), used(after, request)}
    assert now == after


def test_servers_of_the_files_are_those_that_haproxy_reports():
    files = state_of(configuration())
    report = "1\n# head\n2 b1 1 s1 10.0.0.1 2 0 1 1 7 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n"
    report += "2 b1 2 s2 fd00::1 2 0 1 1 7 1 0 2 0 0 0 0 - 81 - 0 0 - - 0\n"
    assert files.servers[KEY].options == ("sni", "str(a b)", "backup")
    assert holds(RuntimeState(structure=files.structure, servers=read_servers(report)), files)
    moved = report.replace("10.0.0.1", "10.0.0.2")
    assert not holds(RuntimeState(structure=files.structure, servers=read_servers(moved)), files)


@pytest.mark.parametrize("flag", [0x01, 0x04, 0x08, 0x20])
def test_a_server_in_maintenance_or_drain_takes_no_connections(flag):
    (server,) = read_servers(f"1\n2 b1 1 s1 10.0.0.1 2 {flag} 1 1 7 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n").values()
    assert not server.is_ready


@pytest.mark.parametrize("report", ["", "2\n", "1\nnonsense\n", "1\n2 b1 1 s1 10.0.0.1 2 x 1 1 7 1 0 2 0 0 0 0 - 80\n"])
def test_a_report_of_another_form_is_not_taken_for_no_servers(report):
    with pytest.raises(UnreadableError):
        read_servers(report)


def test_lists_and_maps_are_read_as_reported():
    assert read_map_entries("0x5f a.test b1\n0x60 k x y\n") == (("a.test", "b1"), ("k", "x y"))
    assert read_names("# certificates.list\nsecrets/a.pem:1\nsecrets/b.pem:2 b.test *.b.test\n") == (
        ListedNames("secrets/a.pem", (), 1),
        ListedNames("secrets/b.pem", ("b.test", "*.b.test"), 2),
    )
    with pytest.raises(UnreadableError):
        read_map_entries("a.test b1\n")


def test_the_structure_has_no_servers_entries_and_certificates():
    text = "secrets/0.pem\nsecrets/a.pem a.test\n"
    first = configuration(**{"maps/a.map": "a b\n", "certificates.list": text})
    first = msgspec.structs.replace(
        first, secrets={"secrets/a.pem": SecretContent(b"1"), "secrets/users.cfg": SecretContent(b"")}
    )
    files = {"haproxy.cfg": CONFIG.replace("10.0.0.1", "10.0.0.9").replace("description 0", "description 1")}
    files |= {"maps/a.map": "c d\n", "certificates.list": "secrets/0.pem\nsecrets/a.pem b.test\n"}
    secrets = {**first.secrets, "secrets/a.pem": SecretContent(b"2")}
    assert structure_of(Configuration(files=files, secrets=secrets)) == structure_of(first)
    assert structure_of(Configuration(files={**files, "maps/b.map": ""}, secrets=secrets)) != structure_of(first)
    users = {**secrets, "secrets/users.cfg": SecretContent(b"userlist u\n")}
    assert structure_of(Configuration(files=files, secrets=users)) != structure_of(first)
    other = {**files, "certificates.list": "secrets/1.pem\n"}
    assert structure_of(Configuration(files=other, secrets=secrets)) != structure_of(first)
    balanced = {**files, "haproxy.cfg": files["haproxy.cfg"].replace("roundrobin", "source")}
    assert structure_of(Configuration(files=balanced, secrets=secrets)) != structure_of(first)
