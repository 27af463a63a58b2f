"""`rulegen show`: dumps as Services, without objects."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from rulegen.cli.json_schemas import SCHEMAS
from rulegen.compiler.dumped.read import as_services
from rulegen.host.files.dumps import read_dumps
from rulegen.plan.dumped.services import DumpedNode
from tests.shared import each, worlds

ENDPOINTS = [("10.244.1.1:80", 50.0, None), ("10.244.1.2:80", 50.0, None)]


def name_of(world: Path | None) -> str | None:
    return world.name if world is not None else None


def document(run, *words: str) -> dict:
    """Return what `show` prints as JSON, which must be valid by its schema."""
    code, out, err = run("show", *words, "-o", "json")
    assert (code, err) == (0, "")
    printed: dict = json.loads(out)
    jsonschema.Draft202012Validator(SCHEMAS["dumped-services"]).validate(printed)
    return printed


@pytest.mark.parametrize(
    ("service", "mode"),
    [
        ("demo/blog", ("iptables",)),
        ("demo/blog", ("nftables", "--nftables-layout", "kube-proxy")),
        (None, ("nftables", "--nftables-layout", "flat")),
        (None, ("ipvs",)),
    ],
    ids=["iptables", "kube-proxy", "flat", "ipvs"],
)
def test_a_dump_shows_frontends_endpoints_and_owners(run, dump, mode, service):
    """Neither virtual servers nor elements of maps name their Service: it is unknown there, and not guessed."""
    dump("node1", lambda text: text, "--mode", *mode)
    ports = document(run, "dumps/node1")["ports"]
    frontends = {frontend["kind"]: frontend["address"] for port in ports for frontend in port["frontends"]}
    assert frontends["cluster IP"] == "TCP 10.96.0.10:8080"
    assert frontends["node port"].endswith("32388")
    for port in ports:
        assert port["service"] == service
        assert sorted(tuple(endpoint.values()) for endpoint in port["endpoints"]) == ENDPOINTS


def test_the_proxy_of_userspace_mode_names_its_services(run, dump):
    dump("node1", lambda text: text, "--mode", "userspace")
    [port] = [port for port in document(run, "dumps/node1")["ports"] if port["service"] == "demo/blog"]
    assert [frontend["address"] for frontend in port["frontends"]] == ["TCP 32388", "TCP 10.96.0.10:8080"]
    assert [tuple(endpoint.values()) for endpoint in port["endpoints"]] == ENDPOINTS
    Path("dumps/node1/services.proxy").unlink()
    unseen = (
        "the proxy of userspace mode (services.proxy of an export): the endpoints are in the proxy, not in the rules"
    )
    assert unseen in document(run, "dumps/node1")["unobserved"]


def test_text_names_service_port_and_what_is_unknown(run, dump):
    dump("node1")
    code, out, err = run("show", "dumps/node1/iptables.save")
    assert (code, err) == (0, "")
    assert out.splitlines()[:6] == [
        "dumps/node1/iptables.save: iptables IPv4",
        "",
        "Service demo/blog",
        "  port http [IPv4]",
        "    cluster IP  TCP 10.96.0.10:8080",
        "    node port  TCP 32388",
    ]
    assert "Not observed, so unknown:\n  iptables IPv6" in out
    assert out.splitlines()[-1] == "Dump: 1 Service, 2 frontends, 0 foreign rules."


@pytest.mark.parametrize(
    "rule",
    [
        "-A KUBE-SERVICES -s 192.0.2.0/24 -j ACCEPT",
        "-A KUBE-SERVICES -s 192.0.2.7/32 -d 10.96.0.10/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-AAAAAAAAAAAAAAAA",
        "-A KUBE-NODEPORTS -p tcp -m tcp --dport 22 -j DNAT --to-destination 192.0.2.9:22",
        "-A KUBE-MARK-MASQ -j RETURN",
    ],
)
def test_a_foreign_rule_in_a_chain_of_services_is_listed(run, dump, rule):
    dump("node1", lambda text: _in_nat(text, rule))
    (foreign,) = document(run, "dumps/node1")["foreign"]
    _, chain, text = rule.split(" ", 2)
    assert (foreign["place"], foreign["text"]) == (f"nat {chain}", text)


WORLDS = each(worlds("iptables.save", "ip6tables.save", "nftables.txt"), "worlds")
DOCKER = """\
:DOCKER - [0:0]
-A DOCKER -i docker0 -j RETURN
-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE"""


def test_rules_of_other_programs_are_counted_by_chain(run, dump):
    dump("node1", lambda text: _in_nat(text, DOCKER))
    printed = document(run, "dumps/node1")
    others = {(other["place"], other["number"]) for other in printed["others"]}
    assert printed["foreign"] == []
    assert others == {("nat DOCKER", 1), ("nat POSTROUTING", 1)}


def test_a_service_without_endpoints_is_refused(run, dump, folder):
    some = "endpoints: [{addresses: [10.244.1.1]}, {addresses: [10.244.1.2]}]"
    replace(folder / "objects.yaml", some, "endpoints: []")
    dump("node1")
    (port,) = document(run, "dumps/node1")["ports"]
    assert port["service"] == "demo/blog"
    assert port["endpoints"] == []
    assert {frontend["refusal"] for frontend in port["frontends"]} == {"rejected"}


def test_policies_are_shown(run, dump, folder):
    policies = "  sessionAffinity: ClientIP\n  externalTrafficPolicy: Local\n"
    replace(folder / "objects.yaml", "  type: NodePort\n", f"  type: NodePort\n{policies}")
    dump("node1")
    (port,) = document(run, "dumps/node1")["ports"]
    assert port["policies"][:2] == ["external traffic policy Local", "session affinity by client address, 10800 s"]


def test_hostile_text_of_a_dump_is_printed_as_characters(run, dump):
    comment = "demo/blog:http \x1b[2J\u202e"
    dump("node1", lambda text: _in_nat(text, f'-A KUBE-SERVICES -m comment --comment "{comment}" -j ACCEPT'))
    for form in ("text", "json"):
        code, out, _ = run("show", "dumps/node1", "-o", form)
        assert code == 0
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "2J" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.index("COMMIT")], "is not complete: no COMMIT"),
        (lambda text: "hello\n", "not a dump"),
        (lambda text: "", "is empty"),
    ],
    ids=["incomplete", "no-dump", "empty"],
)
def test_what_cannot_be_read_is_an_error_not_an_empty_node(run, dump, change, message):
    dump("node1", change)
    code, out, err = run("show", "dumps/node1/iptables.save")
    assert (code, out) == (1, "")
    assert message in err


def _in_nat(text: str, rule: str) -> str:
    """Return rules with another one at the end of table nat."""
    before, table, after = text.partition("*nat\n")
    assert table
    return before + table + after.replace("COMMIT\n", f"{rule}\nCOMMIT\n", 1)


def replace(path: Path, before: str, after: str) -> None:
    """Replace a part of a file, which must be there."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    "world", each(worlds("iptables.save", "ip6tables.save", "nftables.txt"), "worlds"), ids=name_of
)
def test_what_kube_proxy_wrote_is_the_same_in_both_modes(world):
    """Neither mode has a rule that counts as foreign, and both lead the same frontends to the same endpoints."""
    rules, table = (
        as_services(read_dumps(paths, needs_rules=False).states, paths)
        for paths in ([str(world / "iptables.save"), str(world / "ip6tables.save")], [str(world / "nftables.txt")])
    )
    assert rules.foreign == table.foreign == []
    assert _endpoints(rules) == _endpoints(table)


def _endpoints(node: DumpedNode) -> dict[str, set[str]]:
    """Return the endpoints of each frontend; a refused node port has no address that both modes name alike."""
    leads: dict[str, set[str]] = {}
    for port in node.ports:
        for frontend in port.frontends:
            leads.setdefault(frontend.address, set()).update(endpoint.address for endpoint in port.endpoints)
    return leads
