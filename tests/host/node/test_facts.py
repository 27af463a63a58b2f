"""What a host is: gathered in a real namespace, or told by a document with all of its faults named."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import InputError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, run
from rulegen.host.node.facts import gather, interfaces, speaks_ipv6
from rulegen.model.host.document import LOOPBACK, facts_from_document, knows_random_fully
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.net import Family
from tests.rights import SANDBOX, can_run, needs_root


def ip(*arguments: str) -> None:
    assert run(Command(("ip", *arguments))).code == 0


@pytest.mark.usefixtures("namespace")
class TestLive:
    def test_interfaces_and_their_addresses(self):
        ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
        ip("address", "add", "192.0.2.1/24", "dev", "eth7")
        ip("address", "add", "192.0.2.9/32", "dev", "eth7")
        ip("address", "add", "fd00:7::1/64", "dev", "eth7")
        ip("address", "add", "198.51.100.1", "peer", "198.51.100.2/32", "dev", "eth8")

        addresses = {interface.name: interface.addresses for interface in interfaces()}

        assert addresses["lo"] == LOOPBACK.addresses
        assert addresses["eth7"] == tuple(
            (ip_address(address), length)
            for address, length in (("192.0.2.1", 24), ("192.0.2.9", 32), ("fd00:7::1", 64))
        )
        assert addresses["eth8"] == ((ip_address("198.51.100.1"), 32),)

    def test_gather(self):
        run(Command(("sysctl", "-qw", "net.ipv4.ip_forward=1")))

        facts = gather(run)

        assert facts.hostname == socket.gethostname().lower()
        assert facts.interfaces == (LOOPBACK,)
        assert facts.sysctls["net.ipv4.ip_forward"] == "1"
        assert facts.random_fully
        assert facts.nfacct is not None

    def test_ipv6_turned_off(self):
        assert speaks_ipv6()
        run(Command(("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")))

        assert not speaks_ipv6()
        assert gather(run).families == (Family.IPV4,)

    @pytest.mark.parametrize(
        ("version", "expected"), [("iptables v1.6.1", False), ("iptables v1.6.2", True), ("what?", True)]
    )
    def test_random_fully_is_a_matter_of_the_version(self, version, expected):
        assert gather(lambda command: Completed(0, version)).random_fully is expected

    def test_without_iptables_there_are_facts_still(self):
        def nothing(command: Command) -> Completed:
            raise MissingToolError(command.argv[0])

        assert gather(nothing).random_fully


LISTENERS = """
import os, socket
from rulegen.host.node.listening_ports import listening_ports, root_ports
held = []
def listen(address, port, kind=socket.SOCK_STREAM):
    held.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))
    held[-1].bind((address, port))
    if kind == socket.SOCK_STREAM:
        held[-1].listen()
listen("0.0.0.0", 10250)
listen("::", 443)
listen("127.0.0.1", 10248)
listen("0.0.0.0", 53, socket.SOCK_DGRAM)
os.seteuid(65534)
listen("0.0.0.0", 8080)
os.seteuid(0)
print(sorted(root_ports()), sorted(listening_ports() - root_ports()))
"""


@needs_root
@pytest.mark.skipif(not can_run(*SANDBOX, "true"), reason="needs the right to make a network namespace")
def test_the_ports_of_root_are_those_that_no_other_user_can_take():
    done = subprocess.run((*SANDBOX, sys.executable, "-c", LISTENERS), check=True, capture_output=True, text=True)
    assert done.stdout == "[('TCP', 443), ('TCP', 10250), ('UDP', 53)] [('TCP', 8080)]\n"


WHOLE = {
    "number": 9,
    "kind": "named",
    "host": {
        "interfaces": [
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:10",
                "addresses": ["192.168.50.10/24", "fd00:50::10/64", "010.0.0.1/8"],
            },
            {"name": "empty"},
            {"name": "lo", "addresses": ["127.0.0.53/8", "127.0.0.1/8"]},
        ],
        "hostname": "Worker1",
        "sysctls": {"net.ipv4.ip_forward": 1, "net.netfilter.nf_conntrack_tcp_be_liberal": "0", "x.y": True},
        "nfacct": True,
        "iptables": "v1.6.1",
        "ipv6": False,
        "root_ports": ["TCP/10250", "UDP/53"],
    },
}


class TestDocument:
    def test_the_whole_file_or_its_part(self):
        facts = facts_from_document(WHOLE, "world.yaml")

        assert facts == facts_from_document(WHOLE["host"], "host.yaml")
        assert facts.hostname == "worker1"
        assert facts.interfaces == (
            Interface("lo", (*LOOPBACK.addresses, (ip_address("127.0.0.53"), 8))),
            Interface(
                "eth0",
                (
                    (ip_address("192.168.50.10"), 24),
                    (ip_address("fd00:50::10"), 64),
                    (ip_address("10.0.0.1"), 8),
                ),
            ),
            Interface("empty"),
        )
        assert facts.sysctls == {
            "net.ipv4.ip_forward": "1",
            "net.netfilter.nf_conntrack_tcp_be_liberal": "0",
            "x.y": "1",
        }
        assert (facts.nfacct, facts.random_fully, facts.ipv6) == (True, False, False)
        assert facts.root_ports == {("TCP", 10250), ("UDP", 53)}
        assert facts_from_document({}, "host.yaml").root_ports is None

    def test_nothing_said_is_a_bare_host(self):
        assert facts_from_document({}, "x") == HostFacts(interfaces=(LOOPBACK,))

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            (None, "expected the facts of a host as a mapping, not nothing (null)"),
            ([], "expected the facts of a host as a mapping, not a list"),
            ("hello", 'expected the facts of a host as a mapping, not the text "hello"'),
            ({"host": 7}, "host: expected the facts of a host as a mapping, not the number 7"),
            ({"interface": []}, "interface: unknown; known are hostname, interfaces"),
            ({"host": {"interfaces": {}}}, "host.interfaces: expected a list, not an object"),
            ({"interfaces": ["eth0"]}, "interfaces[0]: expected an interface: name"),
            ({"interfaces": [{"name": "a name"}]}, "interfaces[0]: expected an interface: name"),
            ({"interfaces": [{"name": "x" * 16}]}, "interfaces[0]: expected an interface: name"),
            ({"interfaces": [{"name": "a"}, {"name": "a"}]}, 'interfaces[1].name: "a" is listed twice'),
            ({"interfaces": [{"name": "a", "addresses": "1.2.3.4"}]}, "interfaces[0].addresses: expected a list"),
            (
                {"interfaces": [{"name": "a", "addresses": ["1.2.3.4/33"]}]},
                'interfaces[0].addresses[0]: "1.2.3.4/33" is not',
            ),
            ({"interfaces": [{"name": "a", "addresses": ["1.2.3/8"]}]}, 'interfaces[0].addresses[0]: "1.2.3/8" is not'),
            ({"interfaces": [{"name": "a", "addresses": [7]}]}, "interfaces[0].addresses[0]: the number 7 is not"),
            ({"hostname": 7}, "hostname: expected a text, not the number 7"),
            ({"root_ports": ["10250"]}, 'root_ports[0]: the text "10250" is not a protocol and port, as TCP/10250'),
            ({"root_ports": ["TCP/65536"]}, "root_ports[0]"),
            ({"nfacct": "yes"}, 'nfacct: expected true or false, not the text "yes"'),
            ({"iptables": "newest"}, 'iptables: the text "newest" is not a version such as 1.8.9'),
            ({"iptables": 1.8}, "iptables: the number 1.8 is not a version such as 1.8.9"),
            ({"iptables": 10**9999}, "iptables: a number of more than 64 bits is not a version"),
            ({10**9999: 1}, "(a number of more than 64 bits): unknown"),
            ({"x\n": 1}, "x\\n: unknown"),
            ({"sysctls": []}, "sysctls: expected names and values, not a list"),
            ({"sysctls": {"a.b": None}}, "sysctls.a.b: expected a value, not nothing (null)"),
            ({"sysctls": {"a.b": math.pi}}, "sysctls.a.b: expected a value, not the number 3.14"),
        ],
    )
    def test_a_fault_is_reported_with_its_path(self, document, expected):
        with pytest.raises(InputError) as caught:
            facts_from_document(document, "host.yaml")
        assert caught.value.message.startswith(f"host.yaml: {expected}")

    def test_all_faults_are_reported_at_once(self):
        with pytest.raises(InputError) as caught:
            facts_from_document(
                {"hostname": 7, "interfaces": [{"addresses": [1]}, {"name": "b", "addresses": ["x"]}]}, "h"
            )
        assert caught.value.message.count(";") == 2

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["host", "interfaces", "sysctls", "name", "addresses", "iptables"]) | st.integers(),
                    inner,
                )
            ),
        )
    )
    @pytest.mark.slow
    def test_any_document_is_facts_or_a_clear_error(self, document):
        try:
            facts_from_document(document, "host.yaml")
        except InputError as error:
            assert error.message.startswith("host.yaml: ")  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iptables v1.8.11 (nf_tables)", True),
        ("1.8.9", True),
        ("2.0", True),
        ("1.6", False),
        ("1.4.21", False),
        ("8", None),
        ("", None),
    ],
)
def test_versions(text, expected):
    assert knows_random_fully(text) is expected
