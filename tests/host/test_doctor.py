"""The doctor: finds what was done to a real namespace, changes nothing, and never fails."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.namespace import in_throwaway_namespace
from rulegen.host.commands.runner import Command, Completed, MissingToolError, run
from rulegen.host.doctor import bindings, checks
from rulegen.host.doctor.checks import Finding, Level
from rulegen.host.doctor.features import SAMPLES
from rulegen.host.doctor.patient import HostProbe
from rulegen.host.netfilter.variant import Variant
from rulegen.host.node import sysctl
from rulegen.model.services.options import Options
from tests.rights import needs_root

NFTABLES = Options(mode="nftables")
TOPICS = [topic for topic, _ in checks.CHECKS]


def shell(*lines: str) -> None:
    for line in lines:
        ended = run(Command(tuple(line.split())))
        assert ended.code == 0, ended.stderr


def messages_of(topic: str, level: Level | None = None, **options) -> list[str]:
    """Return what the check of one topic finds."""
    findings = dict(checks.CHECKS)[topic](HostProbe(run, **options))
    return [finding.message for finding in findings if level in {None, finding.level}]


def the(findings: tuple[Finding, ...], words: str) -> Finding:
    """Return the one finding with these words."""
    [finding] = [finding for finding in findings if words in finding.message]
    return finding


@pytest.mark.parametrize(
    ("version", "level"), [("1.0.0", Level.FAIL), ("1.0.4", Level.WARN), ("1.0.6", Level.OK), ("1.1.3", Level.OK)]
)
def test_the_nftables_mode_needs_a_sound_nft(version: str, level: Level):
    def answer(command: Command) -> Completed:
        return Completed(0, f"nftables v{version} (Name #5)\n" if command.argv[0] == "nft" else "v9.9.9\n", "")

    probe = HostProbe(answer, options=NFTABLES)
    findings = [each for each in dict(checks.CHECKS)["tools"](probe) if each.message.startswith("nft ")]
    assert [(each.level, version in each.message) for each in findings] == [(level, True)]


@pytest.mark.parametrize(
    ("release", "is_old"), [("5.10.0-28-amd64", True), ("5.13.0", False), ("6.1.0-18-amd64", False)]
)
def test_the_nftables_mode_needs_a_new_linux(monkeypatch: pytest.MonkeyPatch, release: str, is_old: bool):
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release=release))
    level, words = (Level.FAIL, "too old") if is_old else (Level.OK, "new enough")
    assert [message for message in messages_of("kernel", level, options=NFTABLES) if release in message] == [
        f"Linux {release} is {words} for the nftables mode"
    ]
    assert not any(release in message for message in messages_of("kernel"))


@pytest.mark.usefixtures("namespace")
class TestHost:
    def test_the_table_of_the_mode_in_use_is_no_leftover(self):
        shell("nft add table ip kube-proxy")
        assert not messages_of("leftovers", options=NFTABLES)

    def test_tables_of_both_layouts_are_found(self):
        shell("nft add table ip kube-proxy", "nft add table ip6 rulegen")
        (message,) = messages_of("leftovers", options=NFTABLES)
        assert "both layouts: table ip kube-proxy, table ip6 rulegen" in message

    @pytest.mark.parametrize("table", ["kube-proxy", "rulegen"])
    def test_a_table_of_nftables_mode_is_a_leftover_in_other_modes(self, table: str):
        shell(f"nft add table ip6 {table}")
        shell(f"nft add table inet {table}")
        (message,) = messages_of("leftovers")
        assert f"table ip6 {table} of {table}'s nftables mode" in message

    def test_a_bare_host_gets_every_topic(self):
        findings = checks.examine(run)

        silent = {"rules", "leftovers"}  # nothing there, nothing to tell
        assert {finding.topic for finding in findings} >= set(TOPICS) - silent
        assert not [finding for finding in findings if finding.is_failure and finding.topic != "settings"]

    def test_looking_changes_nothing(self):
        checks.examine(run)

        assert run(Command(("nft", "list", "ruleset"))).stdout == ""
        assert run(Command(("iptables-legacy-save",))).stdout == ""
        assert run(Command(("ip6tables-legacy-save",))).stdout == ""
        assert run(Command(("ipset", "list", "-n"))).stdout == ""

    def test_the_forced_variant_is_named(self):
        assert messages_of("variant", Level.OK, forced=Variant.LEGACY) == ["iptables-legacy: as demanded"]

    def test_rules_of_both_variants(self):
        shell("iptables-nft -t nat -N X", "iptables-nft -t nat -A X -j RETURN")
        assert messages_of("rules") == ["iptables-nft: 1 rules, 0 of them for Services"]

        shell("iptables-legacy -t nat -N X", "iptables-legacy -t nat -A X -j RETURN")
        assert any(message.startswith("both variants have rules: ") for message in messages_of("rules", Level.WARN))

    def test_rules_for_services_in_both_variants(self, family):
        tool = "iptables" if family.bits == 32 else "ip6tables"
        shell("iptables-nft -t nat -N KUBE-SERVICES", "iptables-nft -t nat -A KUBE-SERVICES -j RETURN")
        shell(f"{tool}-legacy -t nat -N KUBE-SVC-A", f"{tool}-legacy -t nat -A KUBE-SVC-A -j RETURN")
        assert any(
            message.startswith("both variants have rules for Services") for message in messages_of("rules", Level.FAIL)
        )

    def test_hints_of_the_kubelet_are_no_rules_for_services(self):
        shell("iptables-nft -t nat -N KUBE-SERVICES", "iptables-nft -t nat -A KUBE-SERVICES -j RETURN")
        shell("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY")
        assert not messages_of("rules", Level.FAIL)

    @pytest.mark.parametrize(
        ("commands", "words"),
        [
            (["iptables-nft -t nat -N KUBE-XLB-AAAA"], "iptables-nft: chains of kube-proxy before 1.24: KUBE-XLB-AAAA"),
            (
                ["ip6tables-legacy -t nat -N KUBE-XLB-B"],
                "iptables-legacy: chains of kube-proxy before 1.24: KUBE-XLB-B",
            ),
            (["iptables-nft -t nat -N KUBE-MARK-DROP"], "before 1.28: KUBE-MARK-DROP"),
            (["iptables-nft -t mangle -N KUBE-PROXY-CANARY"], "kube-proxy's marker chain without its rules"),
            (["iptables-nft -N KUBE-IPVS-FILTER"], "chains of kube-proxy's IPVS mode: KUBE-IPVS-FILTER"),
            (["nft add table ip6 kube-proxy"], "nftables has table ip6 kube-proxy"),
            (["ipset create KUBE-CLUSTER-IP hash:ip,port"], "1 ipsets of the IPVS mode: KUBE-CLUSTER-IP"),
            (
                ["ip link add kube-ipvs0 type veth", "ip address add 10.96.0.1/32 dev kube-ipvs0"],
                "interface kube-ipvs0 of the IPVS mode, with 1 addresses",
            ),
        ],
    )
    def test_leftovers(self, commands, words):
        assert messages_of("leftovers") == []
        shell(*commands)
        assert [words in message for message in messages_of("leftovers", Level.WARN)] == [True]

    def test_many_leftovers_are_one_line(self):
        shell(*(f"iptables-nft -t nat -N KUBE-XLB-{letter}" for letter in "ABCDE"))
        [line] = messages_of("leftovers")
        assert line.endswith("KUBE-XLB-A, KUBE-XLB-B, KUBE-XLB-C and 2 more")

    def test_settings(self):
        sysctl.write("net.ipv4.ip_forward", "0")
        assert any("ip_forward = 0" in message for message in messages_of("settings", Level.FAIL))
        sysctl.write("net.ipv4.ip_forward", "1")
        assert not messages_of("settings", Level.FAIL)

    def test_ipv6_forwarding_matters_to_those_with_ipv6_addresses(self):
        sysctl.write("net.ipv6.conf.all.forwarding", "0")
        assert any("forwarding = 0" in message for message in messages_of("settings", Level.INFO))
        shell("ip link add eth7 type veth", "ip address add fd00::1/64 dev eth7")
        assert any("forwarding = 0" in message for message in messages_of("settings", Level.WARN))
        sysctl.write("net.ipv6.conf.all.disable_ipv6", "1")
        assert "IPv6 is turned off" in messages_of("settings", Level.INFO)

    def test_an_open_loopback_needs_its_guard(self):
        sysctl.write("net.ipv4.conf.all.route_localnet", "1")
        assert any("route_localnet = 1" in message for message in messages_of("settings", Level.WARN))
        shell("iptables-nft -N KUBE-FIREWALL", "iptables-nft -A KUBE-FIREWALL -d 127.0.0.0/8 -j DROP")
        assert any("blocks other hosts" in message for message in messages_of("settings", Level.INFO))

    def test_strict_reverse_paths(self):
        sysctl.write("net.ipv4.conf.all.rp_filter", "1")
        assert any("rp_filter = 1" in message for message in messages_of("settings", Level.WARN))

    def test_ports_in_use(self):
        with ExitStack() as stack:
            for port, host in ((10256, "127.0.0.1"), (30080, "::")):
                kind = socket.AF_INET6 if ":" in host else socket.AF_INET
                listener = stack.enter_context(socket.socket(kind))
                listener.bind((host, port))
                listener.listen()
            lines = messages_of("ports", Level.WARN)
        me = f"(process {os.getpid()})"
        assert [me in line for line in lines] == [True, True]
        assert "port 10256 (health checks of load balancers) is taken by" in lines[0]
        assert "listens on 30080: a Service with that node port would get its packets" in lines[1]

    @pytest.mark.parametrize("iptables", ["iptables-nft", "iptables-legacy"])
    def test_a_gateway_that_rules_for_a_service_take_is_named(self, iptables):
        shell("ip link add eth7 type veth peer name eth8", "ip address add 192.0.2.10/24 dev eth7")
        shell("ip link set eth7 up", "ip link set eth8 up", "ip route add default via 192.0.2.1")
        rule = "-p tcp -m comment --comment shop/web:http -m tcp --dport 80 -j KUBE-EXT-X"
        add = f"{iptables} -t nat -A KUBE-SERVICES -d"
        shell(f"{iptables} -t nat -N KUBE-SERVICES", f"{iptables} -t nat -N KUBE-EXT-X", f"{add} 192.0.2.9 {rule}")
        assert messages_of("addresses", Level.WARN) == []
        shell(f"{add} 192.0.2.1 {rule}", f"{add} 100.100.100.200 {rule}")
        assert messages_of("addresses", Level.WARN) == [
            "100.100.100.200, the metadata server of Alibaba Cloud, has rules for shop/web:http",
            "192.0.2.1, the gateway of this node, has rules for shop/web:http",
        ]

    def test_a_gateway_that_ipvs_has_bound_is_named(self):
        shell("ip link add eth7 type veth peer name eth8", "ip address add 192.0.2.10/24 dev eth7")
        shell("ip link set eth7 up", "ip link set eth8 up", "ip route add default via 192.0.2.1")
        shell("ip link add kube-ipvs0 type veth peer name eth9", "ip address add 192.0.2.1/32 dev kube-ipvs0")
        assert messages_of("addresses", Level.WARN) == ["192.0.2.1, the gateway of this node, is bound to kube-ipvs0"]

    def test_outgoing_ports_that_are_node_ports(self):
        sysctl.write("net.ipv4.ip_local_port_range", "31000 60999")
        assert any("local ports 31000-32767" in message for message in messages_of("ports", Level.WARN))
        sysctl.write("net.ipv4.ip_local_reserved_ports", "30000-32767")
        assert not messages_of("ports", Level.WARN)

    @pytest.mark.skipif(find_spec("iptc") is None, reason="python-iptables is optional")
    def test_python_iptables(self):
        assert f"accepts all {len(bindings.SAMPLES)} sample rules" in messages_of("python-iptables", Level.OK)
        shell("iptables-legacy -t nat -N KUBE-POSTROUTING", "iptables-legacy -t nat -A KUBE-POSTROUTING -j RETURN")
        assert "legacy chain KUBE-POSTROUTING, packets that matched its rules: 0" in messages_of("python-iptables")

    def test_each_sample_is_a_rule_that_this_kernel_takes(self):
        lines = messages_of("kernel")
        assert len(lines) == 4, lines
        assert all("accepts every kind of rule that rulegen uses" in line for line in lines), lines

    def test_a_kind_of_rule_that_is_refused_is_named(self, monkeypatch):
        monkeypatch.setitem(SAMPLES, "nonsense", "*nat\n-A OUTPUT -m nonsense -j ACCEPT\nCOMMIT\n")
        lines = messages_of("kernel", Level.FAIL)
        assert len(lines) == 4, lines
        assert all("rejects rules with nonsense: " in line for line in lines), lines

    def test_without_privilege_it_tells_what_is_unseen(self):
        code = (
            "import os, pyroute2\n"
            "from rulegen.host.commands import runner\n"
            "from rulegen.host.doctor import checks\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "print(checks.as_text(checks.examine(runner.run)))"
        )
        ended = run(Command((sys.executable, "-W", "ignore", "-c", code)))
        assert ended.code == 0, ended.stderr
        assert "without CAP_NET_ADMIN" in ended.stdout
        assert "Traceback" not in ended.stdout
        assert "run as root" in ended.stdout


class TestSickHosts:
    def test_a_host_without_any_tool(self):
        def nothing(command: Command) -> Completed:
            raise MissingToolError(command.argv[0])

        findings = checks.examine(nothing)

        assert the(findings, "cannot choose an iptables variant").level is Level.FAIL
        assert the(findings, "conntrack is not installed").hint == "install the package conntrack"

    @pytest.mark.parametrize(
        "answer",
        [
            Completed(1, "", "it burns"),
            Completed(0, "\x00\udcff\n:\n*\n-A\n-A \n:" + "x" * 10_000),
            Completed(-11, "", ""),
            Completed(0, "{", "["),
        ],
    )
    def test_tools_that_talk_nonsense(self, answer):
        findings = checks.examine(lambda command: answer)

        json.dumps(checks.as_document(findings))
        assert {finding.topic for finding in findings} >= {"privileges", "tools", "settings", "ports"}

    @pytest.mark.parametrize("error", [HostError("no", hint="yes"), RuntimeError("bro\nken"), OSError(5, "I/O error")])
    def test_tools_that_cannot_be_run(self, error):
        def broken(command: Command) -> Completed:
            raise error

        findings = checks.examine(broken)

        assert "tools" in {finding.topic for finding in findings if "could not be checked" in finding.message}
        assert all("\n" not in finding.message for finding in findings)

    @pytest.mark.not_quick
    def test_python_iptables_that_crashes(self, monkeypatch):
        if find_spec("iptc") is None:
            pytest.skip("python-iptables is optional")

        def crash(command: Command) -> Completed:
            return Completed(-11) if "rulegen.host.doctor.bindings" in command.argv else run(command)

        lines = [finding.message for finding in checks.examine(crash) if finding.topic == "python-iptables"]
        assert not [line for line in lines if "sample rules" in line]

    @needs_root
    def test_an_incompatible_python_iptables_is_reported_once(self):
        if find_spec("iptc") is None:
            pytest.skip("python-iptables is optional")

        def newer(command: Command) -> Completed:
            if "rulegen.host.doctor.bindings" in command.argv:
                return Completed(0, '{"refused": ["recent rcheck", "addrtype dst-type"], "counters": null}\n')
            return Completed(0, "iptables v1.8.11 (legacy)")

        findings = [
            finding
            for finding in checks.examine(newer)
            if finding.topic == "python-iptables" and "does not support" in finding.message
        ]

        assert [finding.level for finding in findings] == [Level.INFO]
        assert "does not support iptables 1.8.11: it loses recent rcheck, addrtype dst-type" in findings[0].message

    @pytest.mark.parametrize(
        ("version", "level"), [("iptables v1.6.1", Level.WARN), ("iptables v1.8.9 (nf_tables)", Level.OK)]
    )
    def test_an_old_iptables_that_lets_ports_collide(self, version, level):
        findings = checks.examine(lambda command: Completed(0, version))

        tables = [
            finding for finding in findings if finding.topic == "tools" and finding.message.startswith("iptables-nft ")
        ]
        assert [finding.level for finding in tables] == [level]


FINDINGS = (
    Finding(Level.OK, "tools", "iptables-nft 1.8.9"),
    Finding(Level.FAIL, "settings", "net.ipv4.ip_forward = 0", "set it to 1"),
    Finding(Level.WARN, "tools", "conntrack is not installed", "install the package conntrack"),
)


class TestShowing:
    def test_text(self):
        assert checks.as_text(FINDINGS) == (
            "tools\n"
            "  ✓ iptables-nft 1.8.9\n"
            "  ! conntrack is not installed\n"
            "      → install the package conntrack\n"
            "settings\n"
            "  ✗ net.ipv4.ip_forward = 0\n"
            "      → set it to 1\n"
            "\n"
            "1 to fix, 1 to check.\n"
        )

    def test_all_well(self):
        assert checks.as_text(FINDINGS[:1]).endswith("\nEverything is fine.\n")
        assert checks.as_text(()) == "\nEverything is fine.\n"

    def test_colour(self):
        assert "\x1b[31m✗\x1b[0m net.ipv4" in checks.as_text(FINDINGS, colour=True)
        assert "\x1b" not in checks.as_text(FINDINGS)

    def test_document(self):
        document = checks.as_document(FINDINGS)

        assert json.loads(json.dumps(document)) == document
        assert document["schemaVersion"] == 1
        assert document["summary"] == {"ok": 1, "info": 0, "warn": 1, "fail": 1}
        assert document["findings"][1] == {
            "level": "fail",
            "topic": "settings",
            "message": "net.ipv4.ip_forward = 0",
            "hint": "set it to 1",
        }


@pytest.mark.usefixtures("namespace")
class TestThrowawayNamespace:
    def test_what_is_done_there_is_gone(self):
        inside = in_throwaway_namespace(
            lambda: (shell("iptables-nft -N X"), run(Command(("iptables-nft-save",))).stdout)[1]
        )

        assert ":X - [0:0]" in inside
        assert run(Command(("iptables-nft-save",))).stdout == ""

    def test_errors_come_out(self):
        with pytest.raises(ZeroDivisionError):
            in_throwaway_namespace(lambda: 1 // 0)


@pytest.mark.parametrize("has_ipv6", [True, False])
def test_a_host_with_ipv6_and_no_tools_for_it_fails(monkeypatch, has_ipv6):
    def without_ip6tables(command: Command) -> Completed:
        if command.argv[0].startswith("ip6tables"):
            raise MissingToolError(command.argv[0])
        return Completed(0, "iptables v1.8.9 (nf_tables)", "")

    monkeypatch.setattr("rulegen.host.doctor.tools.speaks_ipv6", lambda: has_ipv6)
    findings = tuple(dict(checks.CHECKS)["variant"](HostProbe(without_ip6tables)))
    assert [finding.level for finding in findings] == [Level.OK, *([Level.FAIL] if has_ipv6 else [])]
    assert not has_ipv6 or findings[-1].hint == "install the package iptables"
