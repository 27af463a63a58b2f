"""What a dataplane is to the rest of rulegen: what it has can be read, and a plan can be written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.observed import Observed
    from rulegen.compiler.services.update import Update
    from rulegen.errors import HostError
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.netfilter.variant import VariantChoice
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Address, Family
    from rulegen.plan.plan import Plan


class KernelRevision(NamedTuple):
    """A moment in the kernel's life, by which is told later whether others have written since.

    Attributes:
        generation: Of nf_tables, which grows by one with each commit; None if the rules are not there.
        commits: How many we had made by then.
        digest: Of the rules' text, where there is no generation.
    """

    generation: int | None
    commits: int
    digest: str = ""


class KernelReadout(NamedTuple):
    """What was read of the kernel.

    Attributes:
        raw: By language, as it is read, of languages that take time to read.
        flows: What conntrack remembers of UDP.
        mark: A moment before anything was read; None if nothing can tell whether others write.
        conntrack_error: Why no connections could be listed; None if they were.
    """

    raw: Mapping[str, Any]
    flows: tuple[Flow, ...]
    mark: KernelRevision | None
    conntrack_error: HostError | None = None


class Dataplane(Protocol):
    """Reads and writes what Services are made of. `read`, `plan` and `observed` change nothing: any thread may ask.

    Attributes:
        choice: Which variant of iptables, and why.
        facts: What the host is.
        refused: Kernel parameters that may not be written here, each with the reason.
        drivers: Who reads and writes each language, by language: they know what their errors mean.
        without_ipv6: Which tool is missing for IPv6, whose rules are then left alone; None where all are there.
        beside: What users must know of a proxy's rules in the other variant of iptables, when this began; else empty.
    """

    choice: VariantChoice
    facts: HostFacts
    refused: dict[str, str]
    drivers: Mapping[str, Driver]
    without_ipv6: HostError | None
    beside: str

    def read(self) -> KernelReadout:
        """Read the kernel; another thread may decide meanwhile what is wanted.

        Raises:
            HostError: It cannot be read.
        """

    def plan(self, compiled: Compiled, reading: KernelReadout | None = None) -> Plan:
        """Return what must change for the kernel to be as compiled.

        Raises:
            HostError: It cannot be read.
        """

    def observed(self, compiled: Compiled, reading: KernelReadout) -> Observed:
        """Return what the kernel has, for a plan of what is compiled.

        Raises:
            HostError: Counters cannot be read.
        """

    def write(self, plan: Plan) -> int:
        """Write a plan; return how many writes it took.

        Raises:
            ApplyError: A write failed; says what was written.
        """

    def write_update(
        self,
        update: Update,
        before: dict[ObjectName, ResolvedService | None],
        between: Callable[[], None] | None = None,
    ) -> int:
        """Write what changes of some Services come to; return how many calls it took.

        Raises:
            HostError: A write failed: what is in the kernel must be read again.
        """

    def refresh(self) -> frozenset[Address]:
        """Take the facts of the host as they are now; return the addresses that the node has gained.

        Raises:
            HostError: They cannot be read; those that were known stay.
        """

    def is_untouched(self, mark: KernelRevision) -> bool:
        """Whether nobody but us has written rules since a moment.

        Raises:
            HostError: They cannot be read.
        """

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:
        """Whether kernel parameters are as wanted, those apart that may not be written."""

    def reconcile(self, services: Iterable[ResolvedService], nodes: Mapping[Family, ResolvedNode]) -> int:
        """Delete from conntrack the UDP flows that no Service serves; return how many calls it took.

        Raises:
            HostError: They cannot be listed or deleted.
        """
