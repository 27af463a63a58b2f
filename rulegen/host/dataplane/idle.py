"""The dataplane for `--no-services`: another program manages the rules; nothing is read or written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.compiler.services.observed import Observed
from rulegen.host.dataplane.dataplane import KernelReadout, KernelRevision
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.update import Update
    from rulegen.errors import HostError
    from rulegen.host.dataplane.driver import Driver
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
