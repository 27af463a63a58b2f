"""The proxy beside any mode: it serves the Services that ask for it, and the mode serves the others.

The objects of the mode stay complete, also for these Services, and the rules that lead to the proxy come first. A
Service that starts or stops using it therefore loses no connection: those that exist end where they began.

Marked packets keep their destination (TPROXY), so later rules of the mode must not translate them: those of iptables
are skipped, and tables of nftables do this themselves, see `rulegen.backends.nftables.node`. IPVS cannot skip packets,
so there are no virtual servers for such frontends.

A frontend is served by the proxy if it leads to the cluster pool. Frontends with policy Local and load balancer
addresses with source ranges stay with the mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import structs
from msgspec.structs import replace

from rulegen.backends.userspace.node import proxy_of, with_portal_chains, with_portals
from rulegen.backends.userspace.pools import objects_of
from rulegen.backends.userspace.service import ProxiedPort
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Block, Layout, RulesFragment
from rulegen.languages.listeners.language import NAME as LISTENERS
from rulegen.languages.listeners.state import ServerPool
from rulegen.languages.routes.language import NAME as ROUTES
from rulegen.model.services.ir import Delivery, TrafficPolicy
from rulegen.net import Protocol
from rulegen.ownership import chains
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from rulegen.backends.backend import Backend
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.language import Changes, Union
    from rulegen.languages.listeners.state import ProxyKey, ProxyValue
    from rulegen.model.services.ir import ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address
    from rulegen.ownership.table import Ownership, OwnershipContext

PROXY: Final = "the proxy"
"""In the names of filled sets: a Service uses the proxy. No set has this name."""
_TRANSLATING: Final = frozenset({chains.nat("PREROUTING"), chains.nat("OUTPUT")})
_REFUSING: Final = frozenset({chains.filter_(chains.IPVS_FILTER)})


def with_proxy(mode: Backend) -> Backend:
    """Return the row of a mode in which single Services can ask for the proxy; the same if it serves all of them."""
    if mode.needs.has_proxy:
        return mode
    beside = _Beside(mode)
    return replace(
        mode,
        on_request=tuple(name for name in (IPTABLES, ROUTES, LISTENERS) if name not in mode.languages),
        compile_node=beside.compile_node,
        compile_service=beside.compile_service,
        ownership={**mode.ownership, IPTABLES: beside.ownership},
        depends_on=(*mode.depends_on, LISTENERS),
        filled=beside.filled,
        compile_between=mode.compile_between and beside.compile_between,
    )


class _Beside:
    """The functions of the row of a mode with the proxy beside it."""

    def __init__(self, mode: Backend) -> None:
        self._mode, self._takes_addresses = mode, mode.needs.has_virtual_servers

    def compile_node(self, node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
        """Return the objects of the node; those of the proxy only if a Service uses it."""
        return self._with_portals(self._mode.compile_node(node, counts=counts, filled=filled), node, filled)

    def _with_portals(self, own: OwnedObjects, node: ResolvedNode, filled: Collection[str]) -> OwnedObjects:
        if PROXY not in filled:
            return own
        if IPTABLES in own.objects:
            own = structs.replace(own, objects={**own.objects, IPTABLES: _skipping_marked(own.objects[IPTABLES], node)})
        return with_portals(own, node)

    def compile_service(self, service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
        """Return the objects of the mode, and those of the proxy for a Service that asks for it."""
        ports = [port for port in service.ports if port.is_proxied and port.family is node.family]
        led = [part for port in ports if _has_frontend(part := _led(port))]
        if not led:
            return self._mode.compile_service(service, node, counts=counts)
        own = self._mode.compile_service(self._rest(service, node), node, counts=counts)
        rules = own.objects.get(IPTABLES) or RulesFragment(own.owner, node.family)
        proxied: dict[ProxyKey, ProxyValue] = {}
        blocks = list(rules.blocks)
        for part in led:
            blocks += _Portal(part, node, counts=counts).blocks()
            proxied.update(objects_of(part))
        rules = structs.replace(rules, blocks=tuple(blocks))
        return OwnedObjects(own.owner, node.family, {**own.objects, IPTABLES: rules, LISTENERS: proxied})

    def _rest(self, service: ResolvedService, node: ResolvedNode) -> ResolvedService:
        """Return the Service with the frontends that the mode also serves."""
        if not self._takes_addresses:
            return service
        ports = []
        for port in service.ports:
            is_translated = proxy_of(node).translates and port.protocol is Protocol.TCP
            rest = _without(port, _led(port)) if port.is_proxied and not is_translated else port
            if rest is port or _has_frontend(rest):
                ports.append(rest)
        return structs.replace(service, ports=tuple(ports))

    def ownership(self, context: OwnershipContext) -> Ownership:
        """Return which chains and rules belong to rulegen; if no Service uses or used the proxy, as in the mode."""
        own = self._mode.ownership[IPTABLES](context)
        is_used = _is_used(context.desired.get(LISTENERS, {})) or _was_beside(context.state)
        if context.node is None or not (isinstance(own, Layout) and is_used):
            return own
        return replace(with_portal_chains(own, context.state.family), lasting={})

    def filled(self, unions: Mapping[str, Union], changes: Mapping[str, Changes]) -> frozenset[str]:
        """Return the names of the sets that have entries after the changes, and `PROXY` if a Service uses it."""
        objects = {
            **unions[LISTENERS].objects(),
            **{change.key: change.after for change in changes.get(LISTENERS, ())},
        }
        return self._mode.filled(unions, changes) | (frozenset({PROXY}) if _is_used(objects) else frozenset())

    def compile_between(
        self,
        node: ResolvedNode,
        *,
        counts: bool,
        unions: Mapping[str, Union],
        ours: Mapping[str, Mapping[Any, Any]],
        changes: Mapping[str, Changes],
    ) -> OwnedObjects | None:
        """Return the node's objects while those of other languages change."""
        assert self._mode.compile_between is not None  # noqa: S101 - for the type checker: `with_proxy`
        middle = self._mode.compile_between(node, counts=counts, unions=unions, ours=ours, changes=changes)
        filled = self.filled(unions, {})
        if middle is None and PROXY not in filled and _is_used(ours.get(LISTENERS, {})):
            middle = self._mode.compile_node(node, counts=counts, filled=filled)
            filled |= {PROXY}
        return middle and self._with_portals(middle, node, filled)


def _is_used(objects: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, ServerPool) for value in objects.values())


def _was_beside(state: Ruleset) -> bool:
    """Whether the proxy was used beside a mode; in a mode of its own, no jump of table nat lets marked packets pass."""
    chain = state.chains.get(chains.nat("PREROUTING"))
    is_alone = chain is not None and any(rule.spec == r.jump(chains.SERVICES) for rule in chain.rules)
    return chains.mangle(chains.PORTALS_CONTAINER) in state.chains and not is_alone


def _skipping_marked(rules: RulesFragment, node: ResolvedNode) -> RulesFragment:
    """Return the node's rules; those that translate or refuse packets do not see marked ones."""
    mark = proxy_of(node).mark
    returning = r.rule(r.is_marked(mark), r.return_(), comment="goes to the proxy")
    guarded = {name: (returning, *rules.exact[name]) for name in _REFUSING & rules.exact.keys()}
    blocks = (
        structs.replace(
            block, rules=tuple(r.rule(r.is_not_marked(mark), each.spec, comment=each.comment) for each in block.rules)
        )
        if block.name in _TRANSLATING
        else block
        for block in rules.blocks
    )
    return structs.replace(rules, exact={**rules.exact, **guarded}, blocks=tuple(blocks))


def _led(port: ResolvedPort) -> ResolvedPort:
    """Return a port with those frontends alone whose connections the proxy gets."""
    is_served = port.protocol is not Protocol.SCTP
    is_internal = is_served and port.internal is Delivery.CLUSTER
    is_external = is_served and port.external is Delivery.CLUSTER and port.external_policy is TrafficPolicy.CLUSTER
    return structs.replace(
        port,
        cluster_ip=port.cluster_ip if is_internal else None,
        external_ips=port.external_ips if is_external else (),
        load_balancer_ips=port.load_balancer_ips if is_external and not port.source_ranges else (),
        node_port=port.node_port if is_external else 0,
        local=(),
        source_ranges=(),
        health_check_node_port=0,
    )


def _without(port: ResolvedPort, led: ResolvedPort) -> ResolvedPort:
    return structs.replace(
        port,
        cluster_ip=None if led.cluster_ip is not None else port.cluster_ip,
        external_ips=() if led.external_ips else port.external_ips,
        load_balancer_ips=() if led.load_balancer_ips else port.load_balancer_ips,
        node_port=0 if led.node_port else port.node_port,
    )


def _has_frontend(port: ResolvedPort) -> bool:
    return port.cluster_ip is not None or port.is_external


class _Portal(ProxiedPort):
    """The rules of a port that lead to the proxy; the mode must not see packets of this node to the node port."""

    def _served_blocks(self, frontends: Sequence[tuple[Address, str, str]]) -> Iterator[Block]:
        yield from super()._served_blocks(frontends)
        port = self._port
        if port.node_port and not self._translates:
            words = (r.protocol(port.protocol), r.destination_port(port.protocol, port.node_port))
            rule = r.rule(*words, r.destination_is_local(), r.set_mark(self._mark), comment=f"{self._label} node port")
            yield Block(chains.mangle(chains.PORTALS_HOST), (rule,))
