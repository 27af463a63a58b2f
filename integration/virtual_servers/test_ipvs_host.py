"""Virtual servers, sets and bound addresses of a real kernel: what is written is what is read, refusals are told."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import IPPROTO_TCP
from typing import TYPE_CHECKING

import pytest
from pyroute2 import IPVS, IPVSService
from pyroute2.netlink.exceptions import NetlinkError

from rulegen.diff.changes import diff
from rulegen.errors import HostError
from rulegen.host.commands.runner import Command as Call
from rulegen.host.commands.runner import run
from rulegen.host.ipvs import addresses as links
from rulegen.host.ipvs import servers as ipvs
from rulegen.host.netfilter import ipset
from rulegen.host.netfilter.ipset import SetError
from rulegen.host.node import facts, sysctl
from rulegen.languages.addresses import script as links_script
from rulegen.languages.addresses.state import BOUND, AddressKey, Links
from rulegen.languages.ipset import script as ipset_script
from rulegen.languages.ipset import state as ipset_state
from rulegen.languages.ipvs import text
from rulegen.languages.ipvs.script import IpvsCommand, IpvsVerb, script
from rulegen.languages.ipvs.state import (
    Forwarding,
    Frontend,
    RealServer,
    RealServerKey,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.net import Family, Protocol
from rulegen.ownership import ipsets
from tests.host.conftest import namespace

if TYPE_CHECKING:
    from rulegen.languages.ipvs.state import Objects

__all__ = ["namespace"]

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs"), pytest.mark.usefixtures("namespace", "loaded")]

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh")
"""All that the configuration of kube-proxy may name, and that Debian's kernels have."""

BASES = {Family.IPV4: "10.96.0.0", Family.IPV6: "fd00:10:96::"}
PODS = {Family.IPV4: "10.244.0.0", Family.IPV6: "fd00:10:244::"}


@pytest.fixture
def loaded() -> None:
    ipvs.load(run)


def ipvsadm(*arguments: str) -> str:
    ended = run(Call(("ipvsadm", *arguments)))
    assert ended.code == 0, ended.stderr
    return ended.stdout


def servers(seed: int, count: int) -> Objects:
    """Draw virtual and real servers of all kinds."""
    draw = random.Random(seed)
    objects: Objects = {}
    for number in range(count):
        family = draw.choice(list(Family))
        protocol = draw.choice(list(Protocol))
        frontend = Frontend.of(protocol, ip_address(BASES[family]) + number, draw.randrange(1, 65536))
        scheduler = draw.choice(SCHEDULERS)
        persistence = draw.choice([None, None, 300, 10800])
        masks = (None, 24) if family is Family.IPV4 else (None, 64)
        objects[VirtualServerKey(frontend)] = VirtualServer(
            scheduler,
            persistence,
            draw.choice([0, 0x10]) if scheduler in {"mh", "sh"} else 0,
            one_packet=protocol is Protocol.UDP and draw.random() < 0.2,
            netmask=draw.choice(masks) if persistence else None,
        )
        for pod in range(draw.randrange(4)):
            key = RealServerKey(frontend, ip_address(PODS[family]) + pod + 1, draw.randrange(1, 65536))
            upper = draw.choice([0, 0, 100])
            objects[key] = RealServer(draw.choice([0, 1, 1, 5]), upper=upper, lower=upper // 2, connections=0)
    return objects


def become(before: Objects, after: Objects) -> None:
    reported = script(diff(before, after))
    ipvs.write((*reported.grow, *reported.settle, *reported.shrink))


def printed(objects: Objects) -> Objects:
    """Return what `ipvsadm -Sn` tells of servers: all but bounds of connections, and their number."""
    return {
        key: replace(value, upper=0, lower=0) if isinstance(value, RealServer) else value
        for key, value in objects.items()
    }


def server_key(number: int = 1, protocol: Protocol = Protocol.TCP) -> VirtualServerKey:
    return VirtualServerKey(Frontend.of(protocol, IPv4Address("10.96.0.0") + number, 80))


class TestServers:
    @pytest.mark.parametrize("seed", range(4))
    def test_what_is_written_is_what_is_read(self, seed: int) -> None:
        """And what ipvsadm prints, which shares no code with it."""
        first, then = servers(seed, 60), servers(seed + 1000, 60)
        become({}, first)
        assert ipvs.observe() == first
        assert text.read(ipvsadm("-Sn"), "ipvsadm") == printed(first)
        become(first, then)
        assert ipvs.observe() == then
        assert text.read(ipvsadm("-Sn"), "ipvsadm") == printed(then)
        become(then, {})
        assert ipvs.observe() == {}

    def test_ways_of_others_are_read_as_they_are(self) -> None:
        """What somebody else serves is told with all that makes it different from ours."""
        ipvsadm("-A", "-t", "10.0.0.1:80", "-s", "wlc", "-p", "60", "-M", "255.255.0.0")
        ipvsadm("-a", "-t", "10.0.0.1:80", "-r", "10.0.0.2:80", "-i", "-w", "7", "-x", "10", "-y", "5")
        ipvsadm("-A", "-f", "5", "-s", "rr")
        frontend = Frontend.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
        assert ipvs.observe() == {
            VirtualServerKey(frontend): VirtualServer("wlc", 60, netmask=16),
            RealServerKey(frontend, ip_address("10.0.0.2"), 80): RealServer(7, Forwarding.TUNNEL, 10, 5),
        }

    def test_more_than_a_batch_at_once(self) -> None:
        many = {server_key(number): VirtualServer("rr") for number in range(3 * ipvs.BATCH + 7)}
        become({}, many)
        assert ipvs.observe() == many

    def test_what_is_there_or_gone_already_is_as_good_as_done(self) -> None:
        key, real = server_key(), RealServerKey(server_key().frontend, ip_address("10.244.0.1"), 8080)
        adds = [
            IpvsCommand(IpvsVerb.ADD_SERVICE, key, VirtualServer("rr")),
            IpvsCommand(IpvsVerb.ADD_DESTINATION, real, RealServer(1)),
        ]
        ipvs.write(adds)
        adds = [
            IpvsCommand(IpvsVerb.ADD_SERVICE, key, VirtualServer("sh")),
            IpvsCommand(IpvsVerb.ADD_DESTINATION, real, RealServer(3)),
        ]
        ipvs.write(adds)
        assert ipvs.observe() == {key: VirtualServer("sh"), real: RealServer(3)}
        for _ in range(2):
            ipvs.write([IpvsCommand(IpvsVerb.DELETE_DESTINATION, real), IpvsCommand(IpvsVerb.DELETE_SERVICE, key)])
        assert ipvs.observe() == {}

    def test_a_refusal_names_the_server_and_tells_what_was_done(self) -> None:
        """The others are done: each message is answered for itself."""
        lost = RealServerKey(server_key(9).frontend, ip_address("10.244.0.1"), 8080)
        commands = [
            IpvsCommand(IpvsVerb.ADD_SERVICE, server_key(1), VirtualServer("rr")),
            IpvsCommand(IpvsVerb.ADD_DESTINATION, lost, RealServer(1)),
            IpvsCommand(IpvsVerb.ADD_SERVICE, server_key(2), VirtualServer("rr")),
        ]
        with pytest.raises(HostError) as refused:
            ipvs.write(commands)
        assert refused.value.message == (
            "IPVS rejected `-a -t 10.96.0.9:80 -r 10.244.0.1:8080 -m -w 1`: there is no such virtual server; "
            "2 of 3 were executed"
        )
        assert set(ipvs.observe()) == {server_key(1), server_key(2)}

    def test_timeouts(self) -> None:
        ipvs.set_timeouts(Timeouts(1000, 0, 200))
        now = ipvs.timeouts()
        assert now is not None
        assert (now.tcp, now.udp) == (1000, 200)
        assert now.tcp_fin > 0
        assert text.read_timeouts(ipvsadm("-Ln", "--timeout")) == now


class TestSchedulers:
    def test_all_of_them_can_be_had(self) -> None:
        reported = ipvs.schedulers()
        assert reported is not None
        assert reported >= set(SCHEDULERS)
        ipvs.load(run, SCHEDULERS)
        assert ipvs.observe() == {}

    def test_an_unknown_one_is_named_and_nothing_is_written(self) -> None:
        with pytest.raises(
            HostError, match="IPVS has no scheduler 'best': the kernel has no such scheduler"
        ) as refused:
            ipvs.load(run, ["rr", "best"])
        assert refused.value.hint == "load the module ip_vs_best, or choose another"
        assert ipvs.observe() == {}

    def test_parameters_set_before_the_module_loads_are_kept(self) -> None:
        """A plan is made before anything is loaded."""
        assert sysctl.read_all(ipvs.PARAMETERS) == ipvs.PARAMETERS
        assert ipvs.PARAMETERS.items() <= facts.gather(run).sysctls.items()


class TestPyroute2:
    """Why two of its ways are not taken; when these fail, they may be."""

    def test_its_update_deletes(self) -> None:
        service = IPVSService(addr="10.96.0.1", port=80, protocol=IPPROTO_TCP, sched_name="rr")
        with IPVS() as link:
            link.service("add", service=service)
            assert len(ipvs.observe()) == 1
            link.service("update", service=service)
            assert ipvs.observe() == {}

    def test_it_knows_no_netmask_of_ipv6(self) -> None:
        words = {"addr": "fd00::1", "port": 80, "protocol": IPPROTO_TCP, "sched_name": "rr"}
        with IPVS() as link:
            with pytest.raises(NetlinkError, match="Invalid argument"):
                link.service("add", service=IPVSService(**words))
            link.service("add", service=IPVSService(**words, netmask="128.0.0.0"))
        assert ipvs.observe() == {
            VirtualServerKey(Frontend.of(Protocol.TCP, IPv6Address("fd00::1"), 80)): VirtualServer("rr")
        }


class TestSets:
    def test_what_is_written_is_what_is_read(self) -> None:
        """All of ours, in both families, with an entry of each type."""
        wanted: ipset_state.Objects = {}
        for family, address, prefix in ((Family.IPV4, "10.96.0.1", 24), (Family.IPV6, "fd00:96::1", 64)):
            network = ip_network(f"{address}/{prefix}", strict=False)
            wanted |= ipsets.all_sets(family)
            for key, value in ipsets.all_sets(family).items():
                entry = {
                    "bitmap:port": "80",
                    "hash:ip": address,
                    "hash:ip,port": f"{address},sctp:80",
                    "hash:ip,port,ip": f"{address},tcp:80,{address}",
                    "hash:ip,port,net": f"{address},udp:80,{network}",
                }[value.type]
                wanted[ipset_state.EntryKey(key.name, entry)] = ipset_state.PLAIN
        ipset.restore(run, ipset_script.script(diff({}, wanted)).grow)
        assert ipset.observe(run) == wanted
        reported = ipset_script.script(diff(wanted, {}))
        ipset.restore(run, reported.grow + reported.late + reported.shrink)
        assert ipset.observe(run) == {}

    def test_a_refused_line_is_shown(self) -> None:
        with pytest.raises(SetError) as refused:
            ipset.restore(run, "create A hash:ip family inet\nadd A 10.0.0.1\nadd A fd00::1\nadd A 10.0.0.2\n")
        assert refused.value.line == 3
        assert refused.value.message.startswith("ipset restore rejected line 3 of 4, `add A fd00::1`: ")

    def test_a_set_of_another_type_is_reported(self) -> None:
        ipset.restore(run, "create A hash:ip family inet\n")
        with pytest.raises(SetError, match="line 1 of 1, `create A hash:ip,port family inet`"):
            ipset.restore(run, "create A hash:ip,port family inet\n")


class TestLinks:
    DEVICE = "kube-ipvs0"

    def commands(self, verb: links_script.AddressVerb, *addresses: str) -> list[links_script.AddressCommand]:
        keys = (AddressKey.whole(self.DEVICE, ip_address(text)) for text in addresses)
        return [links_script.AddressCommand(verb, self.DEVICE, key) for key in keys]

    def test_a_device_that_stays_down_and_its_addresses(self) -> None:
        assert links.observe(self.DEVICE) == Links()
        create = links_script.AddressCommand(links_script.AddressVerb.CREATE, self.DEVICE)
        reported = ("10.96.0.1", "fd00:96::1", *(str(ip_address("10.97.0.0") + number) for number in range(450)))
        links.write([create, *self.commands(links_script.AddressVerb.BIND, *reported)])
        bound = {AddressKey.whole(self.DEVICE, ip_address(text)): BOUND for text in reported}
        assert links.observe(self.DEVICE) == Links({self.DEVICE: "dummy"}, bound)
        assert " state DOWN " in run(Call(("ip", "link", "show", self.DEVICE))).stdout
        # Once more is as good as once.
        links.write([create, *self.commands(links_script.AddressVerb.BIND, *reported[:3])])
        for _ in range(2):
            links.write(self.commands(links_script.AddressVerb.UNBIND, *reported[1:]))
        assert list(links.observe(self.DEVICE).addresses) == [AddressKey.whole(self.DEVICE, ip_address("10.96.0.1"))]
        for _ in range(2):
            links.write([links_script.AddressCommand(links_script.AddressVerb.DELETE, self.DEVICE)])
        assert links.observe(self.DEVICE) == Links()
        links.write(self.commands(links_script.AddressVerb.UNBIND, "10.96.0.1"))

    def test_a_device_of_another_kind_is_not_taken(self) -> None:
        run(Call(("ip", "link", "add", self.DEVICE, "type", "bridge")))
        with pytest.raises(HostError, match="kube-ipvs0 is a device of the kind bridge, not dummy"):
            links.write([links_script.AddressCommand(links_script.AddressVerb.CREATE, self.DEVICE)])

    def test_an_address_without_its_device(self) -> None:
        with pytest.raises(HostError, match=r"no device kube-ipvs0: `ip addr add 10.96.0.1/32 dev kube-ipvs0`"):
            links.write(self.commands(links_script.AddressVerb.BIND, "10.96.0.1"))
