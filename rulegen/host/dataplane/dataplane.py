"""The protocol of a dataplane: its state can be read, and a plan can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.observed import Observed
    from rulegen.compiler.services.update import Update
    from rulegen.errors import HostError
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.netfilter.variant import KnownTools, VariantChoice
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Address, Family
    from rulegen.plan.plan import Plan


class KernelRevision(NamedTuple):
    """A revision of the kernel's rules; a later comparison shows whether other programs have written since.

    Attributes:
        generation: Of nf_tables, which increases by one with each commit; None if the rules are not there.
        commits: Number of our commits until then.
        digest: Digest of the rules' text, if there is no generation.
    """

    generation: int | None
    commits: int
    digest: str = ""


class KernelReadout(NamedTuple):
    """State read from the kernel.

    Attributes:
        raw: By language, the unparsed state of languages whose reading takes time.
        flows: UDP entries of conntrack.
        mark: Revision before the read; None if foreign writes cannot be detected.
        conntrack_error: Why connections could not be listed; None if they were.
    """

    raw: Mapping[str, Any]
    flows: tuple[Flow, ...]
    mark: KernelRevision | None
    conntrack_error: HostError | None = None


class Dataplane(Protocol):
    """Reads and writes the objects of Services.

    `read`, `plan` and `observed` change nothing and may be called by any thread.

    Attributes:
        choice: The iptables variant, and the reason.
        facts: Facts of the host.
        refused: Kernel parameters that cannot be written here, each with the reason.
        drivers: The driver of each language, which reads and writes it and interprets its errors.
        without_ipv6: The missing tool for IPv6, whose rules are then not managed; None if no tool is missing.
        beside: Warning about a proxy's rules in the other iptables variant at the start; else empty.
        aside: Families that are neither read nor written, because their tools fail, with the errors.
    """

    choice: VariantChoice
    facts: HostFacts
    refused: dict[str, str]
    drivers: Mapping[str, Driver]
    without_ipv6: HostError | None
    beside: str

    @property
    def tools(self) -> KnownTools | None:
        """What is known about the tools of this host, for the next agent; None for nothing."""

    @property
    def aside(self) -> Mapping[Family, HostError]:
        """Families that are neither read nor written, because their tools fail, with the errors."""

    @property
    def unseen(self) -> Mapping[Family, HostError]:
        """Families of which old rules of iptables cannot be seen, in a mode that writes none, with the errors."""

    def check_family(self, family: Family) -> None:
        """Try the tools of a family that was set aside, without any change; any thread may call this.

        Raises:
            HostError: They still fail.
        """

    def include(self, family: Family) -> None:
        """Read and write a family again that was set aside."""

    def read(self) -> KernelReadout:
        """Read the kernel; another thread may compute the desired state meanwhile.

        Raises:
            HostError: It cannot be read.
        """

    def plan(self, compiled: Compiled, reading: KernelReadout | None = None) -> Plan:
        """Return the changes that the kernel needs.

        Raises:
            HostError: It cannot be read.
        """

    def observed(self, compiled: Compiled, reading: KernelReadout) -> Observed:
        """Return the observed state for a plan.

        Raises:
            HostError: Counters cannot be read.
        """

    def write(self, plan: Plan) -> int:
        """Write a plan; return the number of writes.

        Raises:
            ApplyError: A write failed; the message says what was written.
        """

    def write_update(
        self,
        update: Update,
        before: dict[ObjectName, ResolvedService | None],
        between: Callable[[], None] | None = None,
    ) -> int:
        """Write the changes for some Services; return the number of calls.

        Raises:
            HostError: A write failed: the kernel must be read again.
        """

    def refresh(self) -> frozenset[Address]:
        """Read the current facts of the host; return the new addresses of the node.

        Raises:
            HostError: They cannot be read; the previous ones stay in use.
        """

    def is_untouched(self, mark: KernelRevision) -> bool:
        """Whether no other program has written rules since a revision.

        Raises:
            HostError: They cannot be read.
        """

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:
        """Whether kernel parameters have the required values, except those that cannot be written."""

    def reconcile(self, services: Iterable[ResolvedService], nodes: Mapping[Family, ResolvedNode]) -> int:
        """Delete UDP flows that no Service serves from conntrack; return the number of calls.

        Raises:
            HostError: They cannot be listed or deleted.
        """
