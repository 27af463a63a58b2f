"""The road from objects to a plan. `plan`, `apply`, `export` and the agent walk it; nothing here touches the host.

World ─ resolve ─► Model ─ compile, per Service ─► Fragments ─ union ─► desired ─ diff with observed ─► Plan
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rulegen.backends import BACKENDS, Backend
from rulegen.diff import Change, diff
from rulegen.errors import ConfigError
from rulegen.languages.iptables.state import BlockKey, wanted
from rulegen.model.conntrack import Forgetting, Frontend, stale_flows
from rulegen.net import Family, parse_address, parse_network
from rulegen.plan.plan import Plan, make_plan, plan_family, plan_sysctls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Fragment, Key, Value
    from rulegen.model.conntrack import Flow
    from rulegen.model.facts import HostFacts
    from rulegen.model.ir import Model
    from rulegen.plan.plan import FamilyPlan

_UDP_FRONTEND = re.compile(
    r"(?:-d (?P<address>\S+)/\d+ )?-p udp (?:-m addrtype --dst-type LOCAL )?-m udp --dport (?P<port>\d+) "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A model in the words of its backend.

    Attributes:
        fragments: By family, the node's first, then one for each Service in order of name.
        counts: Whether rules count with nfacct.
    """

    model: Model
    backend: Backend
    fragments: Mapping[Family, Sequence[Fragment]]
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the node has now.

    Attributes:
        rulesets: By family; a family that is not here is not planned.
        flows: What conntrack remembers of UDP.
        counters: Names of the nfacct objects that are there; None where nobody could look.
    """

    rulesets: Mapping[Family, Ruleset]
    flows: Sequence[Flow] = ()
    counters: Collection[str] | None = None


def backend_of(mode: str) -> Backend:
    """Return the backend of a mode.

    Raises:
        ConfigError: There is none.
    """
    backend = BACKENDS.get(mode)
    if backend is None:
        raise ConfigError(
            f"mode {mode!r} is not supported", hint=f"use --mode with one of: {', '.join(sorted(BACKENDS))}"
        )
    return backend


def compile_model(model: Model, mode: str, *, counts: bool) -> Compiled:
    """Return the fragments of every family that the model has."""
    backend = backend_of(mode)
    fragments = {
        family: [
            backend.compile_node(node, counts=counts),
            *(backend.compile_service(service, node, counts=counts) for service in model.services.values()),
        ]
        for family, node in model.nodes.items()
    }
    return Compiled(model=model, backend=backend, fragments=fragments, counts=counts)


def plan_node(
    compiled: Compiled,
    observed: Observed,
    facts: HostFacts,
    service_cidrs: Iterable[str] = (),
    forgetting: Forgetting = Forgetting.ALL,
) -> Plan:
    """Return all that must change for the node to be as the model has it.

    Args:
        compiled: What is wanted.
        observed: What is there.
        facts: What the host is: its addresses tell flows to node ports, its parameters are compared.
        service_cidrs: Where ClusterIPs come from, if known.
        forgetting: Which stale UDP flows are forgotten.
    """
    model, families = compiled.model, {}
    for family, ruleset in observed.rulesets.items():
        node = model.nodes[family]
        desired = wanted(compiled.fragments[family])
        families[family] = plan_family(family, ruleset, desired, compiled.backend.layout(node))
    missing = [
        name for name in compiled.backend.counters if observed.counters is not None and name not in observed.counters
    ]
    return make_plan(
        families,
        sysctls=plan_sysctls(facts.sysctls, model.sysctls),
        counters=tuple(missing) if compiled.counts else (),
        flows=stale_flows(
            observed.flows,
            model.services.values(),
            node_addresses={address for family in Family for address in facts.addresses(family)},
            gone=set(_gone_frontends(part for part, _ in families.values())),
            service_networks=[parse_network(cidr) for cidr in service_cidrs],
            forgetting=forgetting,
        ),
    )


def step(before: Fragment | None, after: Fragment | None) -> tuple[Change[Key, Value], ...]:
    """Return the changes that turn what one owner had into what it wants: what changed, not what exists.

    It is the difference of the whole, seen where it is: rules in shared chains are counted, so what other owners want
    of the same stays.
    """
    old, new = ((fragment,) if fragment is not None else () for fragment in (before, after))
    return diff(wanted(old).objects, wanted(new).objects)


def plan_cleanup(mode: str, observed: Observed) -> Plan:
    """Return all that must go for nothing of ours to be left on the node; what others share with us stays."""
    backend = backend_of(mode)
    families = {}
    for family, ruleset in observed.rulesets.items():
        layout = backend.cleanup_layout(ruleset)
        part, items = plan_family(family, ruleset, wanted(()), layout)
        families[family] = part, [replace(item, drift=None) for item in items]
    return make_plan(families)


def counts_in(rulesets: Iterable[Ruleset]) -> bool:
    """Whether any rule of a dump counts with nfacct."""
    return any("--nfacct-name" in rule.spec for ruleset in rulesets for _, rule in ruleset.rules())


def _gone_frontends(parts: Iterable[FamilyPlan]) -> Iterator[Frontend]:
    """Yield the UDP frontends whose rules the plan takes away without putting others in their place."""
    for part in parts:
        kept = {f for key in part.desired if isinstance(key, BlockKey) for f in _frontends(key)}
        for change in part.changes:
            if change.after is None and isinstance(change.key, BlockKey):
                yield from (frontend for frontend in _frontends(change.key) if frontend not in kept)


def _frontends(key: BlockKey) -> Iterator[Frontend]:
    for spec in key.specs:
        found = _UDP_FRONTEND.search(f"{spec} ")
        if found:
            address = found["address"]
            yield Frontend(parse_address(address) if address else None, int(found["port"]))
