"""The order of a write: a plan cut into tasks, each one call of a tool or one exchange with the kernel.

Make before break, over all languages: each language says in which phase a piece of its work is done, see
`rulegen.languages.language.Phase`; here they are sorted.

Addresses of Services are this node's own in ipvs mode, and KUBE-IPVS-FILTER keeps their clients from what else listens
here. So it is there before the first address is bound, and goes when the last is unbound.

Where another mode has ruled, its dispatch keeps on until all that answers is ready; only then the rules change, and
what it left goes behind that. Both ways, connections that start meanwhile end somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.compiler.tables import TABLES, Tables
from rulegen.languages.language import Phase, Task, WorkTerms
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.diff.changes import Change
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family
    from rulegen.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class EnsureCounters:
    """Create nfacct objects."""

    names: tuple[str, ...]


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


def tasks(plan: Plan, *, chains_per_commit: int | None = None, tables: Tables = TABLES) -> tuple[Task, ...]:
    """Return the writes that a plan needs, in order; none for an empty plan.

    Args:
        plan: What must change.
        chains_per_commit: How many chains a commit of iptables holds; None for one commit, however large.
        tables: The languages and backends that there are.
    """
    taken_over = frozenset(key.family for key, part in plan.parts.items() if key.family is not None and part.takes_over)
    terms = WorkTerms(chains_per_commit, taken_over)
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
    """Yield the parameters; the loopback prefix is opened behind the rule that guards it, and closed before."""
    for name, _, value in changes:
        if value is not None:
            opens = name == ROUTE_LOCALNET and value != "0"
            phase = Phase.PARAMETERS_OPENED if opens else Phase.PARAMETERS
            yield Task(phase, f"{name} = {value}", Parameter(name, value))


def _flows(plan: Plan) -> Iterator[Task]:
    by_family: dict[Family, list[Flow]] = {}
    for stale in plan.flows:
        by_family.setdefault(stale.flow.family, []).append(stale.flow)
    for family, flows in by_family.items():
        title = f"{family} {len(flows)} stale connections"
        yield Task(Phase.FLOWS, title, DeleteConntrackEntries(tuple(flows)))
