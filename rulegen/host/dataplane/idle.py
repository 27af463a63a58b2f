"""Dataplanes that read and write nothing: for `--no-services`, and as long as the tools of this host are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.compiler.services.observed import Observed
from rulegen.errors import HostError
from rulegen.host.dataplane.dataplane import KernelReadout, KernelRevision
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.update import Update
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.netfilter.variant import KnownTools
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.net import Address, Family


@dataclass(slots=True)
class IdleDataplane:
    """Does not touch the rules of this host; see `rulegen.host.dataplane.dataplane.Dataplane`."""

    facts: HostFacts
    choice: VariantChoice = VariantChoice(Variant.NFT, "rules for Services are not managed")  # noqa: RUF009 - frozen
    refused: dict[str, str] = field(default_factory=dict)
    drivers: Mapping[str, Driver] = field(default_factory=dict)
    without_ipv6: HostError | None = None
    beside: str = ""
    aside: Mapping[Family, HostError] = field(default_factory=dict)
    unseen: Mapping[Family, HostError] = field(default_factory=dict)
    tools: KnownTools | None = None

    def check_family(self, family: Family) -> None:
        """Do nothing: no family is ever set aside."""

    def include(self, family: Family) -> None:
        """Do nothing, as above."""

    def read(self) -> KernelReadout:
        """Return nothing."""
        return KernelReadout({}, (), KernelRevision(0, 0))

    def plan(self, compiled: Compiled, reading: KernelReadout | None = None) -> Plan:  # noqa: ARG002 - as the protocol has it
        """Return an empty plan."""
        return Plan()

    def observed(self, compiled: Compiled, reading: KernelReadout) -> Observed:  # noqa: ARG002 - as above
        """Return an empty observation."""
        return Observed(families=(), states={})

    def write(self, plan: Plan) -> int:  # noqa: ARG002 - as above
        """Write nothing."""
        return 0

    def write_update(
        self,
        update: Update,  # noqa: ARG002 - as above
        before: dict[ObjectName, ResolvedService | None],  # noqa: ARG002
        between: Callable[[], None] | None = None,  # noqa: ARG002
    ) -> int:
        """Write nothing."""
        return 0

    def refresh(self) -> frozenset[Address]:
        """Return no new addresses: nothing depends on the host."""
        return frozenset()

    def is_untouched(self, mark: KernelRevision) -> bool:  # noqa: ARG002 - as above
        """Return True: nothing is read."""
        return True

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:  # noqa: ARG002 - as above
        """Return True: the program that manages the rules also manages kernel parameters."""
        return True

    def reconcile(self, services: Iterable[ResolvedService], nodes: Mapping[Family, ResolvedNode]) -> int:  # noqa: ARG002 - as above
        """Delete nothing."""
        return 0


@dataclass(slots=True)
class WaitingDataplane(IdleDataplane):
    """Waits for the tools of this host: each read looks for them, and fails as long as they do not work.

    Attributes:
        look: Looks for them.
        on_found: Called when they work.
    """

    choice: VariantChoice = VariantChoice(Variant.NFT, "no iptables tool of this host works yet")  # noqa: RUF009 - frozen
    look: Callable[[], object] = field(kw_only=True)
    on_found: Callable[[], None] = field(kw_only=True)

    def read(self) -> KernelReadout:
        """Look for the tools.

        Raises:
            HostError: Always: they still do not work, or another dataplane takes this one's place.
        """
        self.look()
        self.on_found()
        raise HostError("the tools of this host work now: the agent begins to write")
