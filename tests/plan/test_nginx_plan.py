"""What a plan tells of nginx's files: what differs, in lines; never a secret; and whether nginx must reload."""

from __future__ import annotations

import pytest

from rulegen.diff.items import Action
from rulegen.languages.configuration import Configuration, SecretContent, digest_of
from rulegen.languages.nginx.main_file import MAIN
from rulegen.plan.ingress import EVERY_OTHER
from rulegen.plan.nginx import plan_site
from rulegen.plan.proxy import SHOWN
from tests.strategies.ingresses import WEB, certificate, compiled, file_of, ingress, key_pem, rule, secret, site, tls


def configuration(files: dict[str, str], secrets: dict[str, bytes] | None = None) -> Configuration:
    hidden = {path: SecretContent(content) for path, content in (secrets or {}).items()}
    return Configuration(files=files, secrets=hidden, digest=digest_of(files, hidden))


def shown(plan):
    return [(item.action, item.kind, item.name) for item in plan.items]


def lines(plan, at=0):
    return [f"{line.sign}{line.text}" for line in plan.items[at].lines]


def test_nothing_differs_and_nothing_is_done():
    same = configuration({"nginx.conf": "a;\n"}, {"secrets/x.pem": b"key"})
    plan = plan_site(same, same, {})
    assert (plan.items, plan.reload) == ((), False)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, {"nginx.conf": "a;\n"}, [(Action.ADD, "file", "nginx.conf")]),
        ({"nginx.conf": "a;\n"}, {"nginx.conf": "b;\n"}, [(Action.CHANGE, "file", "nginx.conf")]),
        ({"hosts/1.conf": "x;\n"}, {}, [(Action.DELETE, "host", "hosts/1.conf")]),
        ({"hosts/1.conf": "server {\n server_name a.test b.test;\n}\n"}, {}, [(Action.DELETE, "host", "a.test")]),
        ({"hosts/1.conf": "server {\n server_name _;\n}\n"}, {}, [(Action.DELETE, "host", EVERY_OTHER)]),
        ({"upstreams/1.conf": "upstream ns.web.80 {\n}\n"}, {}, [(Action.DELETE, "upstream", "ns/web")]),
        ({}, {"hosts/1.conf": "x;\n"}, [(Action.ADD, "host", "named.test")]),
    ],
)
def test_each_file_is_an_item(before, after, expected):
    plan = plan_site(
        configuration(before) if before is not None else None,
        configuration(after),
        {"hosts/1.conf": ("host", "named.test")} if after else {},
    )
    assert shown(plan) == expected
    assert plan.reload


def test_lines_that_differ_are_shown_with_what_stands_around():
    old = "".join(f"line{number};\n" for number in range(30))
    new = old.replace("line10;\n", "line10 new;\n").replace("line20;\n", "")
    plan = plan_site(configuration({"hosts/1.conf": old}), configuration({"hosts/1.conf": new}), {})
    assert lines(plan) == [
        " …",
        " line8;",
        " line9;",
        "-line10;",
        "+line10 new;",
        " line11;",
        " line12;",
        " …",
        " line18;",
        " line19;",
        "-line20;",
        " line21;",
        " line22;",
    ]


def test_a_line_that_looks_like_a_header_of_a_diff_is_shown():
    plan = plan_site(configuration({"f": "a;\n"}), configuration({"f": "a;\n++ b;\n"}), {})
    assert any("b;" in line for line in lines(plan))


def test_a_long_new_file_is_counted_and_a_change_shown():
    long = "x;\n" * (SHOWN + 1)
    assert lines(plan_site(None, configuration({"f": long}), {})) == [f"+({SHOWN + 1} lines)"]
    assert lines(plan_site(configuration({"f": long}), configuration({}), {})) == [f"-({SHOWN + 1} lines)"]
    changed = plan_site(configuration({"f": long}), configuration({"f": long + "y;\n"}), {})
    assert "+y;" in lines(changed)


def test_secrets_are_named_and_not_shown():
    before = configuration({}, {"secrets/old.pem": b"OLD", "secrets/same.pem": b"1"})
    after = configuration({}, {"secrets/new.htpasswd": b"NEW", "secrets/same.pem": b"2"})
    plan = plan_site(before, after, {})
    assert [(item.action, item.kind) for item in plan.items] == [
        (Action.ADD, "secret"),
        (Action.DELETE, "secret"),
        (Action.CHANGE, "secret"),
    ]
    shown = " ".join(line.text for item in plan.items for line in item.lines)
    assert "NEW" not in shown
    assert "OLD" not in shown
    assert "password file" in shown
    assert "not shown" in shown


def test_the_digest_alone_is_no_change_to_show():
    text = "return 200 {digest};\n"
    before = configuration({MAIN: text.format(digest="a" * 32)})
    after = configuration({MAIN: text.format(digest="b" * 32)})
    plan = plan_site(before, after, {})
    assert plan.items == ()
    assert not plan.reload


@pytest.mark.parametrize(("served", "items", "runs"), [(None, 0, True), ("", 1, False), ("f" * 32, 1, True)])
def test_what_nginx_answers_counts_beside_its_files(served, items, runs):
    same = configuration({"nginx.conf": "a;\n"})
    plan = plan_site(same, same, {}, served)
    assert (len(plan.items), plan.reload, plan.runs) == (items, bool(items), runs)
    assert not plan_site(same, same, {}, same.digest).reload


def test_hosts_come_first_and_secrets_last():
    first = compiled(*WEB, served=True)
    site = ingress("site", rule("site.test"), tls=[tls("cert", "site.test")])
    cert = secret("cert", tls_crt=certificate("site.test"), tls_key=key_pem())
    second = compiled(*WEB, cert, site, served=True)
    plan = plan_site(first.configuration, second.configuration, second.names)
    kinds = [item.kind for item in plan.items]
    assert kinds == sorted(kinds, key=("host", "upstream", "file", "secret").index)
    assert ("host", "site.test") in {(item.kind, item.name) for item in plan.items}


def test_a_change_of_one_host_is_one_item_with_its_line():
    first = compiled(*WEB, site(), served=True)
    second = compiled(*WEB, site(proxy_read_timeout="7"), served=True)
    plan = plan_site(first.configuration, second.configuration, second.names)
    assert [item.name for item in plan.items if item.kind == "host"] == ["site.test"]
    assert any(line.startswith("+") and "read_timeout 7s" in line for line in lines(plan))
    assert plan.reload
    assert file_of("site.test") in second.configuration.files
