"""The order of a write: a plan split into tasks, each one call of a tool or one exchange with the kernel.

New objects are added before old ones are removed, over all languages: each language assigns its work to phases
(`rulegen.languages.language.Phase`), and this module sorts them.

In ipvs mode, Service addresses are local addresses of the node, and KUBE-IPVS-FILTER blocks access to other programs at
them. This chain is created before the first address is bound, and removed after the last one is unbound.

After another mode, its dispatch rules stay until the new objects are ready. Then the rules change, and afterwards the
state of the other mode is removed. New connections work all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rulegen.compiler.tables import TABLES, Tables
from rulegen.languages.language import Phase, Task, WorkTerms
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.diff.changes import Change
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family
    from rulegen.plan.plan import Plan


class EnsureCounters(msgspec.Struct, frozen=True):
    """Create nfacct objects."""

    names: tuple[str, ...]


class Parameter(msgspec.Struct, frozen=True):
    """Set a kernel parameter."""

    name: str
    value: str

    @property
    def is_needed(self) -> bool:
        """Whether the rules that are written after it are only safe with it."""
        return self.name == BE_LIBERAL or (self.name == ROUTE_LOCALNET and self.value == "0")


class DeleteConntrackEntries(msgspec.Struct, frozen=True):
    """Delete conntrack entries."""

    flows: tuple[Flow, ...]


def tasks(plan: Plan, *, chains_per_commit: int | None = None, tables: Tables = TABLES) -> tuple[Task, ...]:
    """Return the writes for a plan, in order; none for an empty plan.

    Args:
        plan: The changes.
        chains_per_commit: Number of chains in one commit of iptables; None for one commit of any size.
        tables: The known languages and backends.
    """
    taken_over = frozenset(key.family for key, part in plan.parts.items() if key.family is not None and part.takes_over)
    marked = {key.family: part.new_mark for key, part in plan.parts.items() if key.family is not None and part.new_mark}
    terms = WorkTerms(chains_per_commit, taken_over, marked=marked)
    beside = WorkTerms(chains_per_commit, taken_over, beside=True)
    work = [*_counters(plan), *_parameters(plan.sysctls), *_flows(plan)]
    for name, language in tables.languages.items():
        work += language.work(plan.of(name), terms)
    for name, language in tables.languages.items():
        work += language.work(plan.beside(name), beside)
    return tuple(sorted(work, key=lambda task: task.phase))


def _counters(plan: Plan) -> Iterator[Task]:
    if plan.counters:
        yield Task(Phase.COUNTERS, f"counters {', '.join(plan.counters)}", EnsureCounters(plan.counters))


def _parameters(changes: Iterable[Change[str, str]]) -> Iterator[Task]:
    """Yield the parameters; the loopback prefix is opened after its protecting rule is written, and closed before."""
    for name, _, value in changes:
        if value is not None:
            opens = name == ROUTE_LOCALNET and value != "0"
            phase = Phase.PARAMETERS_OPENED if opens else Phase.PARAMETERS
            yield Task(phase, f"{name} = {value}", Parameter(name, value))


def _flows(plan: Plan) -> Iterator[Task]:
    """Yield the deletion of stale connections; of those through the proxy, also before the proxy goes.

    Until it has gone, it may answer once more, from the destination of the client. Such an answer is a new connection
    for conntrack, with the same tuple: it is deleted at last, too.
    """
    by_family: dict[Family, list[Flow]] = {}
    for stale in plan.flows:
        by_family.setdefault(stale.flow.family, []).append(stale.flow)
    for family, flows in by_family.items():
        of_proxy = tuple(flow for flow in flows if flow.is_untranslated)
        for phase, some in ((Phase.FLOWS_OF_PROXY, of_proxy), (Phase.FLOWS, tuple(flows))):
            if some:
                yield Task(phase, f"{family} {len(some)} stale connections", DeleteConntrackEntries(some))
