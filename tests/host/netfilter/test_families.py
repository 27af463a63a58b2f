"""A family whose tools fail is set aside: the other one is read and written, and nothing of the broken one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.tables import TABLES
from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed
from rulegen.host.dataplane.driver import ReadContext, WriteContext
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.families import BrokenFamilies
from rulegen.host.dataplane.flows import FlowReader
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.netfilter import nft_commits
from rulegen.host.netfilter.variant import KnownTools, Variant, VariantChoice
from rulegen.host.nftables.without_iptables import chosen, warnings
from rulegen.host.node import sysctl
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.languages.nftables.language import ChangeTables
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.model.services.stale_flows import StaleUdpPolicy
from rulegen.net import Family, parse_network
from tests.agent.stage import NODE, changed, endpoints, node, service
from tests.kernels.kernel import Kernel, RefusedError

FACTS = HostFacts()
TEXTS = {Family.IPV4: "10.96.0.1", Family.IPV6: "fd00:10:96::1"}
NETWORKS = (parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56"))


@dataclass
class NftMemory:
    """The language `nftables` in memory: each transaction is applied to the objects of its family.

    Attributes:
        tables: The objects of each family.
        broken: Families of which nothing can be read.
        refused: Families in which nothing can be written.
    """

    tables: dict[Family, dict[Any, Any]] = field(default_factory=lambda: {family: {} for family in Family})
    broken: set[Family] = field(default_factory=set)
    refused: set[Family] = field(default_factory=set)
    name: str = NFTABLES
    tells_of_writes: bool = False

    def read(self, context: ReadContext) -> dict[Family, Any]:
        for family in context.families:
            if family in self.broken:
                raise HostError(f"reading the nftables tables of {family}: no answer")
        return {family: dict(self.tables[family]) for family in context.families}

    def states(self, raw: Mapping[Family, Any], _: ReadContext) -> Mapping[Any, Any]:
        return {(NFTABLES, family): objects for family, objects in raw.items()}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        return {ChangeTables: self._write}

    def _write(self, work: ChangeTables, _: WriteContext) -> None:
        if work.family in self.refused:
            raise HostError(f"nf_tables of {work.family}: no answer")
        for key, before, after in work.changes:
            assert self.tables[work.family].get(key) == before
            if after is None:
                del self.tables[work.family][key]
            else:
                self.tables[work.family][key] = after

    def preparation(self, *_: object) -> None:
        return None

    def is_refusal(self, _: BaseException | None) -> bool:
        return False

    def culprits(self, *_: object) -> dict[str, Any]:
        return {}


@dataclass
class Tools:
    """iptables of both families in memory; those of broken families end with an error."""

    kernels: dict[Family, Kernel] = field(default_factory=lambda: {family: Kernel() for family in Family})
    broken: set[Family] = field(default_factory=set)

    def __call__(self, command: Command) -> Completed:
        tool = command.argv[0]
        family = Family.IPV6 if tool.startswith("ip6") else Family.IPV4
        if not tool.startswith("ip"):
            return Completed(0, "")
        if family in self.broken:
            return Completed(1, stderr="cannot be executed")
        if tool.endswith("-save"):
            return Completed(0, self.kernels[family].save())
        try:
            self.kernels[family].restore(command.stdin)
        except RefusedError as error:
            return Completed(1, stderr=str(error))
        return Completed(0)


class Host:
    """A dataplane of a mode over tools in memory."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.tools, self.nft = Tools(), NftMemory()
        self.said: list[str] = []
        self.cluster = Cluster()
        self.put(service("web"), endpoints("web", 1), node())
        choice = VariantChoice(Variant.NFT, "for a test")
        known = KnownTools(choice, tuple(Family))
        _, drivers = chosen(self.tools, None, {IPTABLES: DRIVERS[IPTABLES], NFTABLES: self.nft}, (mode,), known)
        self.writer = KernelDataplane(
            self.tools,
            choice,
            FACTS,
            languages=(mode,),
            drivers=drivers,
            broken=BrokenFamilies(is_enabled=True, on_change=self.said.append),
        )

    def put(self, *objects: Any) -> None:
        for each in objects:
            self.cluster.apply_event(changed(each))

    def compiled(self) -> Compiled:
        options = Options(node_name=NODE, cluster_cidrs=NETWORKS, mode=self.mode)
        return compile_model(resolve(self.cluster.world(), options, FACTS), self.mode, counts=False)

    def sync(self) -> None:
        """Read, compare and write everything, as a check does."""
        self.writer.write(self.writer.plan(self.compiled(), self.writer.read()))

    def fail(self, what: str, family: Family) -> None:
        {"tools": self.tools.broken, "read": self.nft.broken, "write": self.nft.refused}[what].add(family)

    def mend(self) -> None:
        for broken in (self.tools.broken, self.nft.broken, self.nft.refused):
            broken.clear()

    def has(self, family: Family, text: str) -> bool:
        """Return whether rules with a text are in the kernel."""
        rules = self.tools.kernels[family].save() if self.mode == "iptables" else str(self.nft.tables[family])
        return text in rules


@pytest.fixture(autouse=True)
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_commits, "generation", lambda: None)
    monkeypatch.setattr(FlowReader, "read", lambda *_: ((), None))
    monkeypatch.setattr(sysctl, "read_all", lambda names: dict.fromkeys(names, "0"))
    monkeypatch.setattr(sysctl, "write", lambda *_: None)


CASES = [
    ("iptables", "tools"),
    ("nftables", "read"),
    ("nftables", "write"),
]


@pytest.mark.parametrize(("mode", "what"), CASES)
@pytest.mark.parametrize("broken", list(Family))
def test_the_other_family_is_written_at_once(mode, what, broken):
    host = Host(mode)
    host.fail(what, broken)
    host.sync()
    healthy = next(family for family in Family if family is not broken)
    assert host.has(healthy, TEXTS[healthy])
    assert not host.has(broken, TEXTS[broken])
    assert set(host.writer.aside) == {broken}
    assert host.said[-1]
    host.put(service("shop", 2), endpoints("shop", 2))
    host.sync()
    assert host.has(healthy, TEXTS[healthy][:-1] + "2")
    host.mend()
    host.writer.check_family(broken)
    host.writer.include(broken)
    assert not host.said[-1]
    host.sync()
    assert all(host.has(family, text[:-1] + number) for family, text in TEXTS.items() for number in "12")
    assert host.writer.plan(host.compiled()).is_empty


@pytest.mark.parametrize(("mode", "what"), [case for case in CASES if case[1] != "write"])
def test_a_family_joins_only_when_its_tools_work(mode, what):
    host = Host(mode)
    host.fail(what, Family.IPV6)
    host.sync()
    with pytest.raises(HostError):
        host.writer.check_family(Family.IPV6)
    host.writer.check_family(Family.IPV4)


@pytest.mark.parametrize(("mode", "what"), CASES)
def test_if_both_fail_it_is_an_error_and_both_are_tried_again(mode, what):
    host = Host(mode)
    for family in Family:
        host.fail(what, family)
    with pytest.raises(HostError):
        host.sync()
    assert not host.writer.aside
    host.mend()
    host.sync()
    assert host.has(Family.IPV4, "10.96.0.1")


@pytest.mark.parametrize("broken", [*[{family} for family in Family], set(Family)], ids=["IPv4", "IPv6", "both"])
def test_old_rules_that_cannot_be_read_delay_no_other_mode(broken):
    old = Host("iptables")
    old.sync()
    host = Host("nftables")
    host.tools.kernels = old.tools.kernels
    host.tools.broken |= broken
    host.sync()
    assert all(host.has(family, text) for family, text in TEXTS.items())
    assert set(host.writer.unseen) == broken
    assert len(warnings(host.writer.unseen)) == len(broken)
    assert not host.writer.aside
    assert {family for family in Family if old.has(family, "10.96.0.1") or old.has(family, "fd00:10:96::1")} == broken
    for family in broken:
        with pytest.raises(HostError, match="cannot be executed"):
            host.writer.check_family(family)
    host.mend()
    for family in broken:
        host.writer.check_family(family)
        host.writer.include(family)
    assert not host.writer.unseen
    host.sync()
    assert not any(old.has(family, text) for family, text in TEXTS.items())
    assert host.writer.plan(host.compiled()).is_empty


@pytest.mark.parametrize("mode", sorted(backend.mode for backend in TABLES.backends.values()))
def test_only_modes_with_a_state_for_each_family_set_one_aside(mode):
    """In the others, rules of one family protect objects that are written for both."""
    options = Options(node_name=NODE, cluster_cidrs=NETWORKS, mode=mode)
    writer = KernelDataplane.of_host(
        Tools(), FACTS, Variant.NFT, StaleUdpPolicy.ALL, options, on_aside=lambda _: None, look=lambda facts: facts
    )
    assert writer.broken.is_enabled == (mode in {"iptables", "nftables"})
