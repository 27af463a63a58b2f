"""Counters, settings and connections of a real kernel, each in a namespace of its own."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, run
from rulegen.host.netfilter import conntrack, nfacct
from rulegen.host.netfilter.iptables import observe, restore
from rulegen.host.netfilter.nfacct import Counter
from rulegen.host.node import sysctl
from rulegen.model.services.stale_flows import Flow
from rulegen.net import Family, Protocol

FIRST, SECOND = nfacct.NAMES


def without_privilege(code: str) -> str:
    """Return what Python code prints as nobody; the modules that it needs are loaded before."""
    give_up = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    imports = (
        "from rulegen.errors import HostError; from rulegen.host.netfilter import conntrack, nfacct;"
        "from rulegen.host.node import sysctl;"
        "from rulegen.host.commands.runner import run; from rulegen.net import Family"
    )
    ended = run(Command((sys.executable, "-c", f"{imports}\n{give_up}\n{code}")))
    assert ended.code == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.usefixtures("namespace")
class TestCounters:
    def test_made_once_and_kept(self):
        assert nfacct.supported() is True
        assert nfacct.counters() == {}
        assert nfacct.ensure() == (FIRST, SECOND)
        assert nfacct.ensure() == ()
        assert nfacct.counters() == {name: Counter(name, 0, 0) for name in (FIRST, SECOND)}

    def test_rules_count_and_are_taken_out_by_their_text(self, variant, family):
        nfacct.ensure()
        rules = [f"OUTPUT -m nfacct --nfacct-name {name} -j ACCEPT" for name in (FIRST, SECOND)]
        restore(run, variant, family, "".join(["*filter\n", *(f"-A {rule}\n" for rule in rules), "COMMIT\n"]))
        with socket.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("::1" if family is Family.IPV6 else "127.0.0.1", 9))

        assert nfacct.counters()[FIRST].packets > 0
        assert nfacct.counters()[SECOND].packets == 0

        restore(run, variant, family, f"*filter\n-D {rules[1]}\nCOMMIT\n")
        left = [line for line in observe(run, variant, family).splitlines() if line.startswith("-A")]
        assert len(left) == 1
        assert FIRST in left[0]

    def test_many_counters(self):
        names = [f"counter-{number:03}" for number in range(250)]

        assert nfacct.ensure(names) == tuple(names)
        assert sorted(nfacct.counters()) == names

    def test_a_name_that_is_too_long(self):
        with pytest.raises(HostError):
            nfacct.ensure(["x" * 40])

    def test_nobody_may_look(self):
        assert without_privilege("print(nfacct.supported())") == "None"
        code = "try: nfacct.ensure()\nexcept HostError as error: print(error.hint)"
        assert without_privilege(code) == "run as root, or with CAP_NET_ADMIN"


@pytest.mark.usefixtures("namespace")
class TestSysctl:
    def test_written_and_read_in_this_namespace(self):
        assert sysctl.read("net.ipv4.conf.all.route_localnet") == "0"
        sysctl.write("net.ipv4.conf.all.route_localnet", "1")
        assert sysctl.read("net.ipv4.conf.all.route_localnet") == "1"

    def test_values_of_several_words(self):
        sysctl.write("net.ipv4.ip_local_port_range", "40000 50000")
        assert sysctl.read("net.ipv4.ip_local_port_range") == "40000\t50000"

    def test_an_interface_with_a_dot_in_its_name(self):
        run(Command(("ip", "link", "add", "eth7.5", "type", "veth")))
        assert sysctl.read("net.ipv4.conf.eth7/5.forwarding") in {"0", "1"}

    def test_what_is_not_there(self):
        assert sysctl.read("net.ipv4.nonsense") is None
        assert sysctl.read("net.ipv4.ip_forward.deeper") is None
        assert sysctl.read_all(("net.ipv4.nonsense", "net.ipv4.ip_forward")) == {
            "net.ipv4.ip_forward": sysctl.read("net.ipv4.ip_forward")
        }
        with pytest.raises(HostError, match=r"net\.ipv4\.nonsense: this kernel has no such setting"):
            sysctl.write("net.ipv4.nonsense", "1")

    @pytest.mark.parametrize("value", ["many", "", "99999999999999999999"])
    def test_what_the_kernel_refuses(self, value):
        with pytest.raises(HostError, match=r"net\.ipv4\.ip_forward"):
            sysctl.write("net.ipv4.ip_forward", value)

    @pytest.mark.parametrize("name", ["", ".", "net..x", "net.//.x", "/.x", "net.\0", "net.x/..y"])
    def test_names_that_lead_elsewhere(self, name):
        with pytest.raises(HostError, match="is not the name of a sysctl"):
            sysctl.read(name)

    def test_nobody_may_write(self):
        code = "try: sysctl.write('net.ipv4.ip_forward', '1')\nexcept HostError as error: print(error.message)"
        assert without_privilege(code) == "sysctl net.ipv4.ip_forward = 1: Permission denied"


def insert(*arguments: str) -> None:
    assert run(Command(("conntrack", "-I", "--timeout", "60", *arguments))).code == 0


def insert_dnat(client: str, service: str, endpoint: str, *, sport: int = 1234, protocol: str = "udp") -> None:
    insert(
        *("-p", protocol, "-s", client, "-d", service, "--sport", str(sport), "--dport", "53"),
        *("-r", endpoint, "-q", client, "--reply-port-src", "5353", "--reply-port-dst", str(sport)),
        *(("--state", "ESTABLISHED") if protocol == "tcp" else ()),
    )


ADDRESSES = {
    Family.IPV4: ("10.0.0.1", "10.96.0.10", "10.244.0.5", "10.244.0.6"),
    Family.IPV6: ("fd00::1", "fd00:96::10", "fd00:244::5", "fd00:244::6"),
}


@pytest.mark.usefixtures("namespace")
class TestConnections:
    def test_none(self, family):
        assert conntrack.list_flows(run, family) == ()
        assert conntrack.delete(()) == 0

    def test_read(self, family):
        client, service, endpoint, _ = ADDRESSES[family]
        insert_dnat(client, service, endpoint)

        assert conntrack.list_flows(run, family) == (
            Flow(
                protocol=Protocol.UDP,
                orig_src=ip_address(client),
                orig_dst=ip_address(service),
                orig_sport=1234,
                orig_dport=53,
                reply_src=ip_address(endpoint),
                reply_dst=ip_address(client),
                reply_sport=5353,
                reply_dport=1234,
            ),
        )

    def test_only_udp_of_the_family_and_of_no_zone(self, family):
        client, service, endpoint, _ = ADDRESSES[family]
        other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
        insert_dnat(*ADDRESSES[other][:3])
        insert_dnat(client, service, endpoint, protocol="tcp")
        insert("-p", "udp", "-s", client, "-d", service, "--sport", "9", "--dport", "53", "-w", "7")

        assert conntrack.list_flows(run, family) == ()

    def test_forgets_these_and_no_others(self, family):
        client, service, endpoint, other = ADDRESSES[family]
        insert_dnat(client, service, endpoint, sport=1)
        insert_dnat(client, service, other, sport=2)
        insert_dnat(client, service, endpoint, sport=3)
        flows = conntrack.list_flows(run, family)
        stale = [flow for flow in flows if str(flow.reply_src) == endpoint]

        assert conntrack.delete(stale) == 2
        assert [flow.orig_sport for flow in conntrack.list_flows(run, family)] == [2]
        assert conntrack.delete(stale) == 0

    def test_a_flow_that_began_anew_elsewhere_stays(self, family):
        client, service, endpoint, other = ADDRESSES[family]
        insert_dnat(client, service, endpoint)
        stale = conntrack.list_flows(run, family)
        run(Command(("conntrack", "-F")))
        insert_dnat(client, service, other)

        assert conntrack.delete(stale) == 0
        assert len(conntrack.list_flows(run, family)) == 1

    def test_many(self, tmp_path):
        lines = [
            f"-I -p udp -s 10.1.{n >> 8}.{n & 255} -d 10.96.0.10 --sport 1 --dport 53 --timeout 60 -r 10.244.0.{n % 3} "
            f"-q 10.1.{n >> 8}.{n & 255} --reply-port-src 53 --reply-port-dst 1"
            for n in range(2000)
        ]
        (tmp_path / "flows").write_text("\n".join(lines) + "\n")
        assert run(Command(("conntrack", "-R", str(tmp_path / "flows")))).code == 0
        flows = conntrack.list_flows(run, Family.IPV4)

        assert len(flows) == 2000
        assert conntrack.delete(flows[:999]) == 999
        assert set(conntrack.list_flows(run, Family.IPV4)) == set(flows[999:])

    def test_nobody_may_look_or_forget(self):
        code = (
            "for step in (lambda: conntrack.list_flows(run, Family.IPV4), lambda: conntrack.delete([flow])):\n"
            "    try: print(step())\n"
            "    except HostError as error: print(error.hint)"
        )
        flow = (
            "import ipaddress; from rulegen.model.services.stale_flows import Flow; from rulegen.net import Protocol\n"
            "a = ipaddress.ip_address('10.0.0.1')\n"
            "flow = Flow(protocol=Protocol.UDP, orig_src=a, orig_dst=a, orig_sport=1, orig_dport=1,"
            " reply_src=a, reply_dst=a, reply_sport=1, reply_dport=1)\n"
        )
        assert without_privilege(flow + code).splitlines() == ["run as root, or with CAP_NET_ADMIN"] * 2


def test_a_table_that_changes_while_it_is_read_is_read_anew():
    answers = [Completed(1, "", "conntrack v1.4.7: Operation failed: Interrupted system call\n")] * 2 + [Completed(0)]

    assert conntrack.list_flows(lambda command: answers.pop(0), Family.IPV4) == ()
    assert answers == []


def test_a_table_that_never_rests_is_an_error():
    with pytest.raises(HostError, match="Interrupted system call"):
        conntrack.list_flows(lambda command: Completed(1, "", "Interrupted system call"), Family.IPV4)


def test_without_the_tool():
    def nothing(command: Command) -> Completed:
        raise MissingToolError(command.argv[0])

    with pytest.raises(MissingToolError) as caught:
        conntrack.list_flows(nothing, Family.IPV4)
    assert caught.value.hint == "install the package conntrack"
