"""The dataplane of this host's kernel: reads everything, and writes a complete plan or one update."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import TABLES, Tables
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import READ_TIMEOUT_S
from rulegen.host.dataplane.apply import perform, steps
from rulegen.host.dataplane.dataplane import KernelReadout, KernelRevision
from rulegen.host.dataplane.driver import ReadContext, WriteContext
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.families import OF_FAMILIES, BrokenFamilies, check_tools
from rulegen.host.dataplane.flows import FlowReader, has_udp, udp_frontends
from rulegen.host.dataplane.observe import digest_of, has_objects, observed, read_kernel, warning_beside
from rulegen.host.ipvs.servers import SchedulerError
from rulegen.host.netfilter import conntrack, nfacct, nft_commits, variant
from rulegen.host.nftables import without_iptables
from rulegen.host.node import sysctl
from rulegen.host.node.facts import refreshed
from rulegen.kube.proxyconfig.validation import SCHEDULERS
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.model.services.node.context import BE_LIBERAL
from rulegen.model.services.stale_flows import StaleUdpPolicy, answering, stale_flows
from rulegen.net import AddressKind, Family, kind_of_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.observed import Observed
    from rulegen.compiler.services.ordering import Parameter
    from rulegen.compiler.services.update import Update
    from rulegen.host.commands.runner import Command, Completed, Runner
    from rulegen.host.dataplane.apply import Step
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.netfilter.variant import VariantChoice
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.model.services.options import Options
    from rulegen.net import Address
    from rulegen.plan.plan import Plan

LOCK_WAIT_S = 10
_COUNTED: Final = frozenset({IPTABLES, NFTABLES})
"""Languages in which each write increases the generation of nf_tables, if there is one."""


@dataclass(slots=True)
class KernelDataplane:
    """Reads and writes the rules of this host.

    `read`, `plan` and `observed` change nothing, so any thread may call them.

    Attributes:
        run: Runs the tools.
        choice: The iptables variant, and the reason.
        facts: Facts of the host.
        stale_udp: Which stale UDP flows are deleted from conntrack.
        refused: Kernel parameters that cannot be written here, each with the reason.
        commits: Number of our commits of rules.
        languages: The languages that the mode uses.
        on_request: The languages that it uses if a Service asks for the proxy.
        tables: The known languages and backends.
        drivers: The driver of each language.
        lock_wait_s: Maximum wait for the xtables lock, in seconds; 0 for no limit.
        on_wait: Called with the holder of the lock while we wait.
        without_ipv6: The missing tool for IPv6, whose rules are then not managed; None if no tool is missing.
        beside: Warning about a proxy's rules in the other iptables variant at the start; else empty.
        broken: The families that are set aside, because their tools fail.
        flows: Reads the UDP flows of conntrack.
        on_forgotten: Called after each search for stale connections, with its duration and the number of deleted ones.
        look: Returns the current facts.
    """

    run: Runner
    choice: VariantChoice
    facts: HostFacts
    stale_udp: StaleUdpPolicy = StaleUdpPolicy.ALL
    refused: dict[str, str] = field(default_factory=dict)
    commits: int = 0
    languages: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    tables: Tables = TABLES
    drivers: Mapping[str, Driver] = field(default_factory=lambda: DRIVERS)
    lock_wait_s: int = LOCK_WAIT_S
    on_wait: Callable[[str], None] | None = None
    without_ipv6: HostError | None = None
    beside: str = ""
    broken: BrokenFamilies = field(default_factory=BrokenFamilies)
    flows: FlowReader = field(default_factory=FlowReader)
    on_forgotten: Callable[[float, int], None] = field(default=lambda _seconds, _count: None)
    look: Callable[[HostFacts], HostFacts] = field(default=refreshed)

    @classmethod
    def of_host(
        cls,
        run: Runner,
        facts: HostFacts,
        forced: variant.Variant | None,
        stale_udp: StaleUdpPolicy,
        options: Options,
        *,
        tables: Tables = TABLES,
        drivers: Mapping[str, Driver] = DRIVERS,
        on_forgotten: Callable[[float, int], None] = lambda _seconds, _count: None,
        look: Callable[[HostFacts], HostFacts] = refreshed,
        on_aside: Callable[[str], None] | None = None,
        known: variant.KnownTools | None = None,
        patience_s: float = READ_TIMEOUT_S,
    ) -> KernelDataplane:
        """Return the dataplane for this host's iptables variant and the options.

        With `on_aside`, a family whose tools fail is set aside, and `on_aside` is called with the errors. This needs a
        mode whose objects belong to one family each (`OF_FAMILIES`).

        Without ip6tables, Services are still served in IPv4, as by kube-proxy. With `known`, the tools are not looked
        for again. A tool that takes longer than `patience_s` here counts as hanging.

        Raises:
            HostError: iptables is missing, or does not work.
        """

        def hasty(command: Command) -> Completed:
            return run(replace(command, timeout_s=min(command.timeout_s or patience_s, patience_s)))

        backend = tables.backend(options.mode)
        languages = backend.languages
        choice, drivers = without_iptables.chosen(hasty, forced, drivers, languages, known)
        is_needed = facts.ipv6 and without_iptables.needs_tools(drivers)
        is_known = not is_needed or (known is not None and Family.IPV6 in known.families)
        missing = None if is_known else variant.missing_tool(hasty, choice.variant, Family.IPV6)
        broken = BrokenFamilies()
        if on_aside is not None and set(languages) <= OF_FAMILIES:
            broken = BrokenFamilies(is_enabled=True, on_change=on_aside)
        return cls(
            run,
            choice,
            facts if missing is None else replace(facts, ipv6=False),
            stale_udp,
            languages=languages,
            on_request=backend.on_request,
            broken=broken,
            tables=tables,
            drivers=drivers,
            without_ipv6=missing,
            on_forgotten=on_forgotten,
            look=look,
            beside=warning_beside(hasty, choice.variant, facts.families) if IPTABLES in drivers else "",
        )

    @property
    def tools(self) -> variant.KnownTools | None:
        """What is known about the tools of this host; None without iptables, which may be installed later."""
        return variant.KnownTools(self.choice, self.facts.families) if IPTABLES in self.drivers else None

    def read(self) -> KernelReadout:
        """Read the kernel; another thread may compute the desired state meanwhile.

        Raises:
            HostError: It cannot be read.
        """
        generation, commits, digest = self._generation(), self.commits, ""
        raw = self._read_watched()
        if generation is None:
            digest = digest_of(raw)
        flows, error = self.flows.read(self.run, self.facts.families)
        can_tell = all(
            self.drivers[name].tells_of_writes or (name in _COUNTED and generation is not None)
            for name in self.languages
        )
        context = self.read_context(self.facts.families)
        can_tell = can_tell and not has_objects(self.drivers, self.on_request, context)
        return KernelReadout(
            raw, tuple(flows), KernelRevision(generation, commits, digest) if can_tell else None, error
        )

    def plan(self, compiled: Compiled, reading: KernelReadout | None = None) -> Plan:
        """Return the changes that the kernel needs.

        Args:
            compiled: The desired state.
            reading: State of the kernel, if it was already read.

        Raises:
            HostError: It cannot be read.
        """
        observed = self.observed(compiled, reading or self.read())
        wanted = compiled.model.sysctls
        known = {*self.facts.sysctls, *(wanted.keys() & {BE_LIBERAL})}  # the parameter appears with conntrack's module
        names = known - (self.refused.keys() & wanted.keys())
        facts = replace(self.facts, sysctls=sysctl.read_all(sorted(names)))
        return plan_node(compiled, observed, facts, (), self.stale_udp)

    def read_context(self, families: tuple[Family, ...]) -> ReadContext:
        """Return what is read, and with which tools."""
        return ReadContext(
            run=self.run, variant=self.choice.variant, families=families, needed=frozenset(self.languages)
        )

    def observed(self, compiled: Compiled, reading: KernelReadout) -> Observed:
        """Return the observed state for a plan; state that is fast to read is read now.

        Raises:
            HostError: Sets, servers or counters cannot be read.
        """
        # The state may have been compiled by another thread before IPv6 was enabled or disabled.
        # A family that was set aside was not read.
        read = reading.raw.get(IPTABLES) if without_iptables.needs_tools(self.drivers) else None
        families = tuple(
            family
            for family in self.facts.families
            if family in compiled.model.nodes and (not isinstance(read, Mapping) or family in read)
        )
        others = {name: driver for name, driver in self.drivers.items() if name not in reading.raw}
        raw = dict(reading.raw)
        if self.broken.is_enabled:
            for name in [name for name in self.languages if name in others]:
                raw[name] = self.broken.read(others[name], self.read_context(self.facts.families))
                families = tuple(family for family in families if family in raw[name])
                del others[name]
        context = self.read_context(families)
        context = msgspec.structs.replace(context, needed=context.needed | compiled.requested)
        return observed(
            self.drivers,
            {**raw, **read_kernel(others, context)},
            context,
            flows=reading.flows,
            counters=tuple(nfacct.counters()) if compiled.counts else None,
        )

    def refresh(self) -> frozenset[Address]:
        """Read the current facts of the host; return the new addresses of the node.

        Raises:
            HostError: They cannot be read; the previous ones stay in use.
        """
        before, now = self._addresses(), self.look(self.facts)
        is_new = now.ipv6 and not self.facts.ipv6 and self.without_ipv6 is None
        if is_new and without_iptables.needs_tools(self.drivers):
            self.without_ipv6 = variant.missing_tool(self.run, self.choice.variant, Family.IPV6)
        ipv6 = now.ipv6 and self.without_ipv6 is None
        self.facts = replace(now, ipv6=ipv6, former=self.facts.former | before)
        return self._addresses() - before

    def _addresses(self) -> frozenset[Address]:
        """Return the relevant addresses of the node: link-local ones change with every Pod."""
        return frozenset(
            address
            for family in Family
            for address in self.facts.addresses(family)
            if family is Family.IPV4 or kind_of_address(address) is AddressKind.UNICAST
        )

    def is_untouched(self, mark: KernelRevision) -> bool:
        """Whether no other program has written rules since a revision.

        Without a generation, the rules are read as text, and our own writes count too.

        Raises:
            HostError: They cannot be read.
        """
        if mark.generation is not None:
            return self._generation() == mark.generation + self.commits - mark.commits
        return mark.commits == self.commits and mark.digest == digest_of(self._read_watched())

    def has_parameters(self, wanted: Mapping[str, str]) -> bool:
        """Whether kernel parameters have the required values, except those that cannot be written."""
        mine = {name: value for name, value in wanted.items() if name not in self.refused}
        return sysctl.read_all(mine) == mine

    def steps(self, plan: Plan, on_refused: Callable[[Parameter, HostError], None] | None = None) -> tuple[Step, ...]:
        """Return the writes of a plan, in order; see `rulegen.host.dataplane.apply.steps`."""
        context = WriteContext(
            run=self.run,
            variant=self.choice.variant,
            wait_s=self.lock_wait_s,
            on_wait=self.on_wait,
            on_commits=self._count,
        )
        return steps(plan, context, tables=self.tables, drivers=self.drivers, on_refused=on_refused)

    def write(self, plan: Plan) -> int:
        """Write a plan; return the number of writes.

        Raises:
            ApplyError: A write failed; the message says what was written.
        """
        work = self.steps(plan, on_refused=self._refuse)
        self._perform(work)
        return len(work)

    def _perform(self, work: tuple[Step, ...], between: Callable[[], None] | None = None) -> None:
        """Execute the writes; a missing scheduler is remembered, so that one Service does not block all others.

        Raises:
            ApplyError: A write failed.
        """
        rest = self.broken.kept(work)
        while rest:
            try:
                perform(rest, (lambda _number, _step: between()) if between is not None else None)
            except ApplyError as error:
                failed = len(rest) - len(error.pending)
                if self.broken.set_aside(rest[failed].family, error, self.facts.families):
                    rest = self.broken.kept(rest[failed + 1 :])
                    continue
                if isinstance(error.__cause__, SchedulerError):
                    known = SCHEDULERS if self.facts.schedulers is None else self.facts.schedulers
                    fewer = frozenset(known) - {error.__cause__.scheduler}
                    self.facts = replace(self.facts, schedulers=fewer)
                raise
            return

    def _refuse(self, parameter: Parameter, error: HostError) -> None:
        """Continue without a parameter, for example in a container with read-only parameters.

        Raises:
            HostError: The rules after it are only safe with it: they must be compiled again without it.
        """
        if parameter.is_needed:
            self.facts = replace(self.facts, fixed_sysctls=self.facts.fixed_sysctls | {parameter.name})
            raise error
        self.refused[parameter.name] = error.message

    def write_update(
        self,
        update: Update,
        before: dict[ObjectName, ResolvedService | None],
        between: Callable[[], None] | None = None,
    ) -> int:
        """Write the changes for some Services; return the number of calls.

        Args:
            update: The changes.
            before: The previous Services.
            between: Called before each call, for work that must not wait for all of them.

        Raises:
            HostError: A write failed: the kernel must be read again.
        """
        work = self.steps(update.plan)
        self._perform(work, between)
        calls = len(work)
        touched = [name for name, service in update.services.items() if has_udp(service) or has_udp(before.get(name))]
        had, has = [before.get(name) for name in touched], [update.services[name] for name in touched]
        deletes, _ = self._delete_stale_flows(had, has, update.nodes)  # if they cannot be listed: each check tries
        return calls + deletes

    def _count(self, commits: int) -> None:
        self.commits += commits

    @property
    def aside(self) -> Mapping[Family, HostError]:
        """Families that are neither read nor written, because their tools fail, with the errors."""
        return self.broken.errors

    @property
    def unseen(self) -> Mapping[Family, HostError]:
        """Families of which old rules of iptables cannot be seen, in a mode that writes none, with the errors."""
        return dict(without_iptables.unseen(self.drivers))

    def check_family(self, family: Family) -> None:
        """Try the tools of a family that was set aside, without any change; any thread may call this.

        Raises:
            HostError: They still fail, or are still missing.
        """
        if family is Family.IPV6 and self.without_ipv6 is not None:
            missing = variant.missing_tool(self.run, self.choice.variant, family)
            if missing is not None:
                raise missing
        check_tools(without_iptables.strict(self.drivers), self.read_context((family,)), self.lock_wait_s)

    def include(self, family: Family) -> None:
        """Read and write a family again that was set aside, or had no tools: the next check reads the host first."""
        if family is Family.IPV6:
            self.without_ipv6 = None
        without_iptables.unseen(self.drivers).pop(family, None)
        self.broken.include(family)

    def _read_watched(self) -> Mapping[str, Any]:
        """Return what `_watched` read; a family whose tool fails is set aside.

        Raises:
            HostError: A part cannot be read.
        """
        if not self.broken.is_enabled or IPTABLES not in self.drivers:
            return read_kernel(self._watched, self.read_context(self.facts.families))
        texts = self.broken.read(self.drivers[IPTABLES], self.read_context(self.facts.families))
        others = {name: driver for name, driver in self._watched.items() if name != IPTABLES}
        return {IPTABLES: texts, **read_kernel(others, self.read_context(self.facts.families))}

    @property
    def _watched(self) -> Mapping[str, Driver]:
        """Languages in which foreign writes can be detected."""
        return {name: driver for name, driver in self.drivers.items() if driver.tells_of_writes}

    def _generation(self) -> int | None:
        return nft_commits.generation() if self.choice.variant is variant.Variant.NFT else None

    def _delete_stale_flows(
        self,
        before: Sequence[ResolvedService | None],
        after: Sequence[ResolvedService | None],
        nodes: Mapping[Family, ResolvedNode],
    ) -> tuple[int, HostError | None]:
        """Delete from conntrack the UDP flows that changed Services leave.

        Returns:
            The number of calls, and why the flows could not be listed; None if they were.
        """
        if not after:
            return 0, None
        began = time.monotonic()
        flows, error = self.flows.read(self.run, self.facts.families)
        now = [service for service in after if service is not None]
        gone = udp_frontends(old for old in before if old is not None) - udp_frontends(now)
        own = [address for family in self.facts.families for address in self.facts.addresses(family)]
        here = answering(nodes, own)
        stale = list(stale_flows(flows, now, node_addresses=here, gone=gone, stale_udp=self.stale_udp))
        deleted = conntrack.delete([entry.flow for entry in stale]) if stale else 0
        self.on_forgotten(time.monotonic() - began, deleted)
        return int(bool(stale)), error

    def reconcile(self, services: Iterable[ResolvedService], nodes: Mapping[Family, ResolvedNode]) -> int:
        """Delete UDP flows that no Service serves from conntrack; return the number of calls.

        Raises:
            HostError: They cannot be listed or deleted.
        """
        if self.stale_udp is StaleUdpPolicy.NONE:
            return 0
        calls, error = self._delete_stale_flows((), [service for service in services if has_udp(service)], nodes)
        if error is not None:
            raise error
        return calls
