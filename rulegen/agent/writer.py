"""The kernel's side of the agent: reading all of it, and writing the difference or one change."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulegen.host import conntrack, nfacct, nft_notices, sysctl, variant
from rulegen.host.apply import perform, steps
from rulegen.host.facts import interfaces
from rulegen.host.observe import observe
from rulegen.host.runner import run
from rulegen.host.variant import VariantChoice
from rulegen.model.conntrack import Forgetting, Frontend, frontends_of, stale_flows
from rulegen.net import Protocol
from rulegen.plan.plan import Plan
from rulegen.road import backend_of, plan_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rulegen.errors import HostError
    from rulegen.host.runner import Runner
    from rulegen.kube.world import ObjectName
    from rulegen.model.facts import HostFacts
    from rulegen.model.ir import Service
    from rulegen.road import Compiled
    from rulegen.road.services import Update

LOCK_WAIT_S = 10


@dataclass(slots=True)
class KernelWriter:
    """Reads and writes the rules of this host.

    Attributes:
        run: What runs the tools.
        choice: Which variant of iptables, and why.
        facts: What the host is.
        forgetting: Which stale UDP flows are forgotten.
        refused: Kernel parameters that may not be written here, each with the reason.
        has_objects: Whether the mode keeps sets and virtual servers.
        on_forgotten: Is told of each look at connections: how long it took, and how many were forgotten.
    """

    run: Runner
    choice: VariantChoice
    facts: HostFacts
    forgetting: Forgetting = Forgetting.ALL
    refused: dict[str, str] = field(default_factory=dict)
    has_objects: bool = False
    on_forgotten: Callable[[float, int], None] = lambda _seconds, _count: None

    @classmethod
    def of_host(
        cls, run: Runner, facts: HostFacts, forced: variant.Variant | None, forgetting: Forgetting, mode: str
    ) -> KernelWriter:
        """Return the writer for this host's variant and a mode.

        Raises:
            HostError: There is no iptables.
        """
        has_objects = bool(backend_of(mode).devices)
        return cls(run, variant.choose(run, forced), facts, forgetting, has_objects=has_objects)

    def plan(self, compiled: Compiled) -> Plan:
        """Return what must change for the kernel to be as compiled.

        Raises:
            HostError: It cannot be read.
        """
        observed = observe(
            self.run,
            self.choice.variant,
            self.facts.families,
            needs_sets=bool(compiled.backend.devices),
            flows=[flow for family in self.facts.families for flow in conntrack.list_flows(self.run, family)],
            counters=tuple(nfacct.counters()) if compiled.counts else None,
        )
        names = [name for name in self.facts.sysctls if name not in self.refused]
        facts = replace(self.facts, sysctls=sysctl.read_all(names))
        return plan_node(compiled, observed, facts, (), self.forgetting)

    def moved(self) -> bool:
        """Look whether the node's own addresses have changed, and go on with those that it has now.

        Raises:
            HostError: They cannot be read.
        """
        if not self.has_objects:
            return False
        before = [set(self.facts.addresses(family)) for family in self.facts.families]
        self.facts = replace(self.facts, interfaces=interfaces())
        return before != [set(self.facts.addresses(family)) for family in self.facts.families]

    def generation(self) -> int | None:
        """Return what changes whenever anybody changes rules; None where nothing tells, and they must be read."""
        if self.has_objects:  # of virtual servers and sets nothing tells
            return None
        return nft_notices.generation() if self.choice.variant is variant.Variant.NFT else None

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:
        """Whether kernel parameters are as wanted, those apart that may not be written."""
        mine = {name: value for name, value in wanted.items() if name not in self.refused}
        return sysctl.read_all(mine) == mine

    def write(self, plan: Plan) -> int:
        """Make a plan so; return how many writes it took.

        Raises:
            ApplyError: A write failed; says what was written.
        """
        work = steps(plan, self.run, self.choice.variant, wait_s=LOCK_WAIT_S, on_refused=self._refuse)
        perform(work)
        return len(work)

    def _refuse(self, name: str, error: HostError) -> None:
        """Go on without a parameter, as in a container, whose parameters are read-only: the rules matter more."""
        self.refused[name] = error.message

    def write_update(self, update: Update, before: dict[ObjectName, Service | None]) -> int:
        """Write what changes of some Services come to; return how many calls it took.

        Args:
            update: What they come to.
            before: The Services as they were.

        Raises:
            HostError: A write failed: what is in the kernel must be read anew.
        """
        work = steps(update.plan, self.run, self.choice.variant, wait_s=LOCK_WAIT_S)
        perform(work)
        calls = len(work)
        touched = [name for name, service in update.services.items() if _has_udp(service) or _has_udp(before.get(name))]
        return calls + self._forget([before.get(name) for name in touched], [update.services[name] for name in touched])

    def _forget(self, before: Sequence[Service | None], after: Sequence[Service | None]) -> int:
        """Forget the UDP connections that changed Services leave behind."""
        if not after:
            return 0
        began = time.monotonic()
        flows = [flow for family in self.facts.families for flow in conntrack.list_flows(self.run, family)]
        now = [service for service in after if service is not None]
        gone = _frontends(old for old in before if old is not None) - _frontends(now)
        addresses = {address for family in self.facts.families for address in self.facts.addresses(family)}
        found = stale_flows(flows, now, node_addresses=addresses, gone=gone, forgetting=self.forgetting)
        stale = list(found)
        forgotten = conntrack.delete([one.flow for one in stale]) if stale else 0
        self.on_forgotten(time.monotonic() - began, forgotten)
        return int(bool(stale))

    def reconcile(self, services: Iterable[Service]) -> int:
        """Forget the UDP connections that nobody serves, of all Services; return how many calls it took.

        Raises:
            HostError: They cannot be read or forgotten.
        """
        if self.forgetting is Forgetting.NONE:
            return 0
        return self._forget((), [service for service in services if _has_udp(service)])


class IdleWriter(KernelWriter):
    """Leaves the rules of this host alone: somebody else keeps them."""

    def __init__(self, facts: HostFacts) -> None:
        """Take what the host is."""
        super().__init__(run, VariantChoice(variant.Variant.NFT, "rules for Services are left alone"), facts)

    def plan(self, compiled: Compiled) -> Plan:  # noqa: ARG002 - as the one that writes
        """Return that nothing must change."""
        return Plan()

    def generation(self) -> int | None:
        """Return the same for ever: nothing is looked at."""
        return 0

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:  # noqa: ARG002 - as the one that writes
        """Whether kernel parameters are as wanted: whoever keeps the rules sees to that."""
        return True

    def reconcile(self, services: Iterable[Service]) -> int:  # noqa: ARG002 - as the one that writes
        """Forget nothing."""
        return 0

    def write_update(self, update: Update, before: dict[ObjectName, Service | None]) -> int:  # noqa: ARG002 - as above
        """Write nothing."""
        return 0


def _has_udp(service: Service | None) -> bool:
    return service is not None and any(port.protocol is Protocol.UDP for port in service.ports)


def _frontends(services: Iterable[Service]) -> set[Frontend]:
    return {
        frontend
        for service in services
        for port in service.ports
        if port.protocol is Protocol.UDP
        for frontend in frontends_of(port)
    }
