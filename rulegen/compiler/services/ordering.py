"""The order of a write: a plan cut into tasks, each one call of a tool or one exchange with the kernel.

Make before break, over all languages. What a rule names exists before the rule: counters, sets and their entries. What
answers is there before packets are led to it: real servers, then the address. And back in reverse.

Addresses of Services are this node's own in ipvs mode, and KUBE-IPVS-FILTER keeps their clients from what else listens
here. So it is there before the first address is bound, and goes when the last is unbound.

Where another mode has ruled, its dispatch keeps on until all that answers is ready; only then the rules change, and
what it left goes behind that. Both ways, connections that begin meanwhile end somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.addresses import script as links_script
from rulegen.languages.ipset import script as ipset_script
from rulegen.languages.iptables import script as iptables_script
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import BlockKey, ChainValue
from rulegen.languages.ipvs import script as ipvs_script
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET
from rulegen.ownership import chains, ipsets
from rulegen.plan.fragments import IPSET, IPVS, LINKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.diff import Change
    from rulegen.languages.iptables.script import Comments
    from rulegen.languages.iptables.state import Key, Objects, Value
    from rulegen.languages.ipvs.state import Frontend, Timeouts
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family
    from rulegen.plan.plan import Plan


SERVED_AT_ONCE: Final = 5_000
"""A task for IPVS has so many commands at most: between two tasks the agent writes what others wait for."""
_IPVS_FILTER = chains.filter_(chains.IPVS_FILTER)
_INPUT = ChainName("filter", "INPUT")


@dataclass(frozen=True, slots=True)
class EnsureCounters:
    """Create nfacct objects."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoreRules:
    """Feed `iptables-restore --noflush` of one family; with `beside`, that of the other variant than the plan's."""

    family: Family
    text: str
    beside: bool = False


@dataclass(frozen=True, slots=True)
class RestoreIpsets:
    """Feed `ipset restore`."""

    text: str


@dataclass(frozen=True, slots=True)
class ChangeVirtualServers:
    """Have IPVS do these, one after the other."""

    commands: tuple[ipvs_script.IpvsCommand, ...]


@dataclass(frozen=True, slots=True)
class WaitForDrain:
    """Give connections that virtual servers have some time to end; no new ones come to them."""

    frontends: frozenset[Frontend]


@dataclass(frozen=True, slots=True)
class ChangeAddresses:
    """Do these to devices and their addresses, one after the other."""

    commands: tuple[links_script.AddressCommand, ...]


@dataclass(frozen=True, slots=True)
class SetIpvsTimeouts:
    """Set how long IPVS remembers connections."""

    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class Parameter:
    """Set a kernel parameter."""

    name: str
    value: str

    @property
    def is_needed(self) -> bool:
        """Whether the rules that are written behind it are only safe with it."""
        return self.name == BE_LIBERAL or (self.name == ROUTE_LOCALNET and self.value == "0")


@dataclass(frozen=True, slots=True)
class DeleteConntrackEntries:
    """Delete conntrack entries."""

    flows: tuple[Flow, ...]


Work = (
    EnsureCounters
    | RestoreRules
    | RestoreIpsets
    | ChangeVirtualServers
    | WaitForDrain
    | ChangeAddresses
    | SetIpvsTimeouts
    | Parameter
    | DeleteConntrackEntries
)


@dataclass(frozen=True, slots=True)
class Task:
    """One write; `title` tells people what it writes."""

    title: str
    work: Work


def tasks(plan: Plan, *, chains_per_commit: int | None = None) -> tuple[Task, ...]:
    """Return what makes a plan so, in order; none for an empty plan.

    Args:
        plan: What must change.
        chains_per_commit: How many chains a commit of iptables holds; None for one commit, however large.
    """
    return tuple(_Order(plan, chains_per_commit).tasks())


class _Order:
    def __init__(self, plan: Plan, chains_per_commit: int | None) -> None:
        self._plan, self._chains_per_commit = plan, chains_per_commit
        changes = {family: part.changes for family, part in plan.objects.items()}
        self._sets = {
            family: ipset_script.script(
                told.get(IPSET, ()), plan.objects[family].desired.get(IPSET), ipsets.order(family)
            )
            for family, told in changes.items()
        }
        self._servers = {family: ipvs_script.script(told.get(IPVS, ())) for family, told in changes.items()}
        self._links = {family: links_script.script(told.get(LINKS, ())) for family, told in changes.items()}

    def tasks(self) -> Iterator[Task]:
        """Yield all of it, in order."""
        plan = self._plan
        if plan.counters:
            yield Task(f"counters {', '.join(plan.counters)}", EnsureCounters(plan.counters))
        yield from _devices(plan.devices, creates=True)
        yield from _parameters(plan.sysctls, is_last=False)
        if plan.timeouts is not None and plan.timeouts.after is not None:
            yield Task("timeouts of IPVS", SetIpvsTimeouts(plan.timeouts.after))
        for family, part in plan.beside.items():  # before the sets, which its rules may look into
            yield from self._restores(family, _split(part.changes).rest, None, part.comments, beside=True)
        yield from self._fill("sets, filled", {f: s.grow for f, s in self._sets.items()})
        yield from self._rules(before=True)
        for family, servers in self._servers.items():
            yield from _serve(family, "servers", (*servers.grow, *servers.settle))
        yield from self._fill("sets, of those whose source is kept", {f: s.late for f, s in self._sets.items()})
        for family, links in self._links.items():
            yield from _bind(f"{family} addresses, bound", links.bind)
        yield from self._rules(before=False)
        yield from self._await()
        for family, links in self._links.items():
            yield from _bind(f"{family} addresses, unbound", links.unbind)
        yield from self._filters_removed()
        for family, servers in self._servers.items():
            yield from _serve(family, "virtual servers, removed", servers.shrink)
        yield from self._fill("sets, emptied", {f: s.shrink for f, s in self._sets.items()})
        yield from _devices(plan.devices, creates=False)
        yield from _parameters(plan.sysctls, is_last=True)
        yield from self._forget()

    def _rules(self, *, before: bool) -> Iterator[Task]:
        """Yield the rules: all of them on one side of what answers, or those that lead to the state between first."""
        for family, part in self._plan.iptables.items():
            first, then = part.bridge or (part.changes, ())
            early, rest, _ = _split(first)
            if part.switches and before:
                yield from self._restores(family, early, None, part.comments)
            if part.switches is not before:
                changes = rest if part.switches else sorted((*early, *rest), key=lambda change: change.key)
                yield from self._restores(family, changes, None if part.bridge else part.desired, part.comments)
                anew = self._sets[family].anew if family in self._sets else ""
                yield from self._fill("sets, made anew", {family: anew})
            if not before:
                yield from self._restores(family, then, None, part.comments)

    def _filters_removed(self) -> Iterator[Task]:
        """Yield what takes KUBE-IPVS-FILTER away, in both variants of iptables."""
        for parts, beside in ((self._plan.iptables, False), (self._plan.beside, True)):
            for family, part in parts.items():
                first, _ = part.bridge or (part.changes, ())
                yield from self._restores(family, _split(first).late, None, part.comments, beside=beside)

    def _restores(
        self,
        family: Family,
        changes: Iterable[Change[Key, Value]],
        desired: Objects | None,
        comments: Comments,
        *,
        beside: bool = False,
    ) -> Iterator[Task]:
        for restore in iptables_script.script(
            changes, desired, chains_per_commit=self._chains_per_commit, comments=comments
        ):
            where = "other variant, " if beside else ""
            yield Task(f"{where}{family} {restore.title}", RestoreRules(family, restore.text, beside))

    def _await(self) -> Iterator[Task]:
        """Where another mode takes over, requests that IPVS has begun to answer are answered."""
        families = [family for family, part in self._plan.iptables.items() if part.switches and family in self._servers]
        leaving = {command.key.frontend for family in families for command in self._servers[family].shrink}
        if leaving:
            yield Task(f"connections of {len(leaving)} virtual servers, waited for", WaitForDrain(frozenset(leaving)))

    def _fill(self, title: str, texts: Mapping[Family, str]) -> Iterator[Task]:
        for family, text in texts.items():
            if text:
                yield Task(f"{family} {title}: {len(text.splitlines())} lines", RestoreIpsets(text))

    def _forget(self) -> Iterator[Task]:
        by_family: dict[Family, list[Flow]] = {}
        for stale in self._plan.flows:
            by_family.setdefault(stale.flow.family, []).append(stale.flow)
        for family, flows in by_family.items():
            yield Task(f"{family} {len(flows)} stale connections", DeleteConntrackEntries(tuple(flows)))


class _Split(NamedTuple):
    """Changes of rules: those that bring KUBE-IPVS-FILTER, all others, and those that take it away."""

    early: tuple[Change[Key, Value], ...]
    rest: tuple[Change[Key, Value], ...]
    late: tuple[Change[Key, Value], ...]


def _split(changes: Iterable[Change[Key, Value]]) -> _Split:
    """Return the changes by when they are made, each part in the order that it had."""
    parts: tuple[list[Change[Key, Value]], ...] = ([], [], [])
    for change in changes:
        goes = change.after is None or (isinstance(change.after, ChainValue) and not change.after.rules)
        parts[(2 if goes else 0) if _is_of_filter(change.key) else 1].append(change)
    return _Split(*map(tuple, parts))


def _is_of_filter(key: Key) -> bool:
    """Whether an object is KUBE-IPVS-FILTER, or the jump to it from INPUT."""
    if key.name == _IPVS_FILTER:
        return True
    return isinstance(key, BlockKey) and key.name == _INPUT and key.specs[-1].endswith(f"-j {_IPVS_FILTER.chain}")


def _serve(family: Family, title: str, commands: tuple[ipvs_script.IpvsCommand, ...]) -> Iterator[Task]:
    for start in range(0, len(commands), SERVED_AT_ONCE):
        part = commands[start : start + SERVED_AT_ONCE]
        yield Task(f"{family} {title}: {len(part)}", ChangeVirtualServers(part))


def _bind(title: str, commands: tuple[links_script.AddressCommand, ...]) -> Iterator[Task]:
    if commands:
        yield Task(f"{title}: {len(commands)}", ChangeAddresses(commands))


def _devices(changes: Sequence[Change[str, str]], *, creates: bool) -> Iterator[Task]:
    for name, _, after in changes:
        if (after is not None) is creates:
            verb = links_script.AddressVerb.CREATE if creates else links_script.AddressVerb.DELETE
            yield Task(f"{verb.value} {name}", ChangeAddresses((links_script.AddressCommand(verb, name),)))


def _parameters(changes: Iterable[Change[str, str]], *, is_last: bool) -> Iterator[Task]:
    """Yield the parameters; the loopback prefix is opened behind the rule that guards it, and closed before."""
    for name, _, value in changes:
        if value is not None and is_last is (name == ROUTE_LOCALNET and value != "0"):
            yield Task(f"{name} = {value}", Parameter(name, value))
