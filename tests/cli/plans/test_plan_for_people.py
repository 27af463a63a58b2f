"""What people see of a plan: changes by Service and host first; the rules if they fit, or on request."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sys
from typing import TYPE_CHECKING

import pytest

from rulegen.cli.main import main
from tests.cli.test_plan import HOST

if TYPE_CHECKING:
    from pathlib import Path

FLAT = "nftables --nftables-layout flat"
OF_CHAINS = "nftables --nftables-layout kube-proxy"
MODES = ("iptables", "ipvs", FLAT, OF_CHAINS, "userspace")
MOST_LINES = 60


def service(name: str, namespace: str = "shop", number: int = 1, **labels: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": f"10.96.{number >> 8}.{number & 255}",
            "clusterIPs": [f"10.96.{number >> 8}.{number & 255}"],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def endpoints(name: str, *addresses: str, namespace: str = "shop") -> dict[str, object]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "http", "port": 8080}],
    }


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a plan for some objects, compared with what was exported for others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host").write_text(HOST)

    def call(before: list[object] | None, after: list[object], *words: str, mode: str = "iptables") -> str:
        for name, items in (("before", before or []), ("after", after)):
            (tmp_path / f"{name}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        common = ("--host", "host", "--mode", *mode.split())
        observed = "none"
        if before is not None:
            observed = "out"
            with pytest.raises(SystemExit):
                main(["export", "-f", "before.json", *common, "-o", "out"])
            capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["plan", "-f", "after.json", *common, "--observed", observed, *words])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return printed.out

    return call


@pytest.mark.parametrize("mode", MODES)
def test_an_endpoint_that_goes_is_a_loss_of_its_port(plan, mode):
    before = [service("web"), endpoints("web", "10.244.1.1", "10.244.2.53", "10.244.3.1")]
    after = [service("web"), endpoints("web", "10.244.1.1", "10.244.3.1")]
    out = plan(before, after, mode=mode)
    assert "  ~ Service shop/web (http loses 10.244.2.53:8080 (3 → 2))" in out.splitlines()
    assert "Services: 1 to change." in out.splitlines()


@pytest.mark.parametrize("mode", MODES)
def test_an_endpoint_that_is_replaced_is_a_gain_and_a_loss(plan, mode):
    before = [service("web"), endpoints("web", "10.244.1.1")]
    after = [service("web"), endpoints("web", "10.244.1.2")]
    line = "  ~ Service shop/web (http gains 10.244.1.2:8080 and loses 10.244.1.1:8080 (1 → 1))"
    assert line in plan(before, after, mode=mode).splitlines()


@pytest.mark.parametrize("mode", MODES)
def test_the_first_endpoint_makes_no_new_service(plan, mode):
    before, after = [service("web")], [service("web"), endpoints("web", "10.244.1.1")]
    assert "~ Service shop/web (http gains 10.244.1.1:8080 (0 → 1))" in plan(before, after, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_services_that_come_and_go_are_named(plan, mode):
    before = [service("old", number=2), endpoints("old", "10.244.1.9")]
    after = [service("web"), endpoints("web", "10.244.1.1", "10.244.1.2")]
    out = plan(before, after, mode=mode)
    assert "  + Service shop/web (ClusterIP, 1 port, 2 endpoints)" in out.splitlines()
    assert re.search(
        r"^  - (Service shop/old \(no longer served here\)|\d+ objects that no Service needs)", out, re.MULTILINE
    )


AFFINITY = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}
EXTERNAL = {"externalIPs": ["198.51.100.7"]}


def weighed(annotation: str) -> dict[str, object]:
    item = service("web")
    item["metadata"]["annotations"] = {"rulegen.io/weights": annotation}  # type: ignore[index]
    return item


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ((AFFINITY, "1", "2"), (AFFINITY, "1", "3"), "http gains 10.244.1.3:8080 and loses 10.244.1.2:8080 (2 → 2)"),
        ((EXTERNAL, "1"), (EXTERNAL, "1", "2"), "http gains 10.244.1.2:8080 (1 → 2)"),
        (({}, "1", "2"), (AFFINITY, "1", "2"), "objects: "),
        (({}, "1"), (EXTERNAL, "1"), "objects: "),
        (({},), (EXTERNAL,), "objects: "),
    ],
    ids=["with session affinity", "with an external IP", "gets affinity", "gets an external IP", "without endpoints"],
)
def test_a_changed_service_is_not_new(plan, mode, before, after, effect):
    objects = [
        [{**web, "spec": {**web["spec"], **more}}, endpoints("web", *(f"10.244.1.{end}" for end in ends))]
        for (more, *ends), web in zip((before, after), (service("web"), service("web")), strict=True)
    ]
    assert f"  ~ Service shop/web ({effect}" in plan(*objects, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_endpoints_that_stay_are_no_gain_and_no_loss(plan, mode):
    ends = endpoints("web", "10.244.1.1", "10.244.1.2", "10.244.1.3")
    ends["endpoints"][1]["zone"] = "a"  # type: ignore[index]
    before, after = ([weighed(json.dumps({"node:topology.kubernetes.io/zone=a": weight})), ends] for weight in (1, 3))
    for one_way in ((before, after), (after, before)):
        out = plan(*one_way, mode=mode)
        assert "No changes." in out or "~ Service shop/web (objects: " in out, out
        assert "gains" not in out, out
        assert "loses" not in out, out


def test_a_change_of_layout_moves_no_endpoint(plan):
    web = [service("web"), endpoints("web", "10.244.1.1")]
    out = plan(web, web, "--nftables-layout", "kube-proxy", mode=FLAT)
    assert "~ Service shop/web (objects: " in out
    assert "gains" not in out


def test_many_endpoints_are_counted(plan):
    before = [service("web"), endpoints("web", "10.244.1.1")]
    after = [service("web"), endpoints("web", *(f"10.244.1.{number}" for number in range(1, 10)))]
    assert "http gains 8 endpoints (1 → 9)" in plan(before, after)


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_services_fit_on_a_screen(plan, mode):
    objects = [service(f"web-{number}", f"team-{number % 7}", number + 1) for number in range(1000)]
    out = plan(None, objects, mode=mode)
    assert len(out.splitlines()) <= MOST_LINES
    assert "143 Services in team-0: web-0, web-105, " in out
    assert "Services: 1,000 to add." in out
    assert "-d 10.96." not in out


def test_what_is_asked_for_is_shown_in_full_and_nothing_else(plan):
    objects = [service("web", tier="front"), service("api", number=2, tier="back"), service("web", "blog", 3)]
    for words, wanted in {
        ("shop/web",): {"shop/web"},
        ("web",): {"shop/web", "blog/web"},
        ("web", "-n", "blog"): {"blog/web"},
        ("-n", "shop"): {"shop/web", "shop/api"},
        ("-l", "tier in (front)"): {"shop/web"},
        ("-l", "tier", "api"): {"shop/api"},
        ("-n", "nowhere"): set(),
    }.items():
        out = plan(None, objects, *words)
        assert set(re.findall(r"^Service (\S+) \(", out, re.MULTILINE)) == wanted, words
        assert f"Only {' '.join(words)} is shown" in out or words == ("-l", "tier", "api")
        assert "Node-wide" not in out
        assert "KUBE-MARK-MASQ [IPv4]" not in out
    whole = plan(None, objects, "-A", "-v")
    assert whole.splitlines()[-1] == out.splitlines()[-1]
    assert "Node-wide rules and parameters" in whole


def test_a_part_as_json_counts_the_whole_plan(plan):
    objects = [service("web"), service("api", number=2)]
    whole, part = (json.loads(plan(None, objects, *words, "-o", "json")) for words in ((), ("shop/web",)))
    assert {change["service"] for change in part["changes"]} == {"shop/web"}
    assert (part["summary"], part["shown"]) == (whole["summary"], "shop/web")
    assert whole["shown"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shop/nope",), "there is no Service shop/nope"),
        (("web", "-n", "blog"), "there is no Service web in blog"),
        (("-n", "shop", "-A"), "-n and -A exclude each other"),
    ],
)
def test_a_service_that_nobody_has_is_an_error(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "one.json").write_text(json.dumps(service("web")))
    with pytest.raises(SystemExit) as stop:
        main(["plan", "-f", "one.json", "--host", "host", "--observed", "none", *words])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "lines", "is_paged"), [(("-v",), 24, True), (("-v", "--no-pager"), 24, False), (("-v",), 5000, False)]
)
@pytest.mark.not_quick
def test_a_pager_shows_what_is_longer_than_the_terminal(tmp_path, words, lines, is_paged):
    """`$PAGER` is a program that marks each line."""
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "all.json").write_text(json.dumps(service("web")))
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho secure=$LESSSECURE\nexec sed 's/^/PAGED /'\n")
    pager.chmod(0o755)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        environment = {**os.environ, "PAGER": str(pager), "TERM": "xterm", "NO_COLOR": "1", "LINES": str(lines)}
        asked = ("plan", "-f", "all.json", "--host", "host", "--observed", "none", *words)
        os.execve(sys.executable, [sys.executable, "-m", "rulegen", *asked], environment)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal ends with its last program
        while piece := os.read(terminal, 65536):
            shown += piece
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert b"KUBE-SERVICES" in shown
    assert (b"PAGED Node node1" in shown) is is_paged
    if is_paged and os.geteuid() == 0:
        assert b"secure=1" in shown
