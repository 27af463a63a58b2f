"""What a plan changes for users: one line for each Service and host, before the rules."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.diff.items import Action
from rulegen.net import join_host_port
from rulegen.plan.ingress import DEFAULT_SERVER, EVERY_OTHER
from rulegen.text import counted_noun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.diff.items import Item
    from rulegen.model.services.ir import ResolvedPort, ResolvedService
    from rulegen.plan.plan import Plan

MOST: Final = 40
"""Maximum number of lines; more Services are listed by namespace."""
_NAMES_LISTED: Final = 4
_PARAMETER: Final = "parameter"
"""Kind of a parameter of the kernel."""
_PortKey = tuple[str, str]
"""Family and label of a port."""
_VERBS: Final = {Action.ADD: "add", Action.CHANGE: "change", Action.DELETE: "remove"}


class Effect(NamedTuple):
    """What a plan changes for the users of one Service or host.

    Attributes:
        action: Whether it is new, changes, or is removed.
        subject: `Service` or `host`; empty for the node.
        name: `namespace/name` or the host name; empty for leftovers without an owner.
        text: What changes.
    """

    action: Action
    subject: str
    name: str
    text: str = ""


def effects(plan: Plan, services: Mapping[str, ResolvedService]) -> Iterator[Effect]:
    """Yield the effects of a plan: on Services by name, leftovers, the node, hosts.

    Args:
        plan: The plan.
        services: The Services that the node serves, by name.
    """
    engine = plan.site.engine if plan.site is not None else ""
    of_node = [item for item in plan.items if item.language != engine]
    node: list[Item] = []
    for (is_leftover, owner), group in groupby(of_node, key=lambda item: (item.is_leftover, item.owner)):
        items = tuple(group)
        if is_leftover:
            text = "no longer served here" if owner else f"{counted_noun(len(items), 'object')} that no Service needs"
            yield Effect(Action.DELETE, "Service", owner, text + _drift(items))
        elif not owner:
            node += items
        else:
            yield _of_service(owner, items, services.get(owner))
    parameters = [item for item in node if item.kind == _PARAMETER]
    if rules := [item for item in node if item.kind != _PARAMETER]:
        yield Effect(_joint(rules), "", "", f"objects of the node itself: {_counts(rules)}{_drift(rules)}")
    for item in parameters:  # they concern all that this node does, not only Services
        values = " → ".join(line.text for line in item.lines)
        yield Effect(item.action, "", "", f"kernel parameter {item.name}: {values}{_drift((item,))}")
    if plan.site is not None:
        for item in plan.site.items:
            if item.kind == "host":
                name = DEFAULT_SERVER if item.name == EVERY_OTHER else item.name
                yield Effect(item.action, "host", name, _drift((item,)).strip())


def lines(changed: Sequence[Effect]) -> Iterator[tuple[Action, str]]:
    """Yield the effects as lines, at most about `MOST`: many Services are joined by namespace, many hosts by action."""
    for subject in ("Service", "host", ""):
        own = [effect for effect in changed if effect.subject == subject]
        if len(own) <= MOST // 2:
            yield from ((effect.action, effect_text(effect)) for effect in own)
        else:
            yield from _joined(own, subject)


def totals(changed: Iterable[Effect]) -> Iterator[str]:
    """Yield how many Services and hosts are added, changed and removed."""
    numbers: dict[str, dict[Action, int]] = defaultdict(lambda: dict.fromkeys(Action, 0))
    for effect in changed:
        if effect.name:
            numbers[effect.subject][effect.action] += 1
    for subject, counts in numbers.items():
        parts = [f"{counts[action]:,} to {verb}" for action, verb in _VERBS.items() if counts[action]]
        yield f"{subject.capitalize()}s: {', '.join(parts)}."


def effect_text(effect: Effect) -> str:
    """Return an effect as one line, without its sign."""
    if not effect.name:
        return effect.text
    return " ".join(filter(None, (effect.subject, effect.name, effect.text and f"({effect.text})")))


def _joined(own: Sequence[Effect], subject: str) -> Iterator[tuple[Action, str]]:
    """Yield one line for each action and namespace, the largest first; the rest in one line."""
    groups: dict[tuple[Action, str], list[str]] = defaultdict(list)
    for effect in own:
        namespace, slash, name = effect.name.partition("/")
        groups[effect.action, namespace if slash else ""].append(name or namespace)
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    for (action, namespace), names in largest[: MOST // 2]:
        place = f" in {namespace}" if namespace else ""
        listed = ", ".join(names[:_NAMES_LISTED]) + (", …" if len(names) > _NAMES_LISTED else "")
        yield action, f"{counted_noun(len(names), subject)}{place}: {listed}"
    if rest := largest[MOST // 2 :]:
        count = sum(len(names) for _, names in rest)
        yield Action.CHANGE, f"{counted_noun(count, subject)} in {counted_noun(len(rest), 'other namespace')}"


def _of_service(owner: str, items: Sequence[Item], service: ResolvedService | None) -> Effect:
    if service is None:
        return Effect(_joint(items), "Service", owner, f"objects: {_counts(items)}{_drift(items)}")
    gained, lost = _endpoints(items, service, gained=True), _endpoints(items, service, gained=False)
    if _is_new(items, service, gained):
        addresses = {endpoint.host for port in service.ports for endpoint in port.endpoints}
        ports = {port.name or str(port.port) for port in service.ports}
        about = [service.type, counted_noun(len(ports), "port"), counted_noun(len(addresses), "endpoint")]
        about += [f"assigned for preview: {' and '.join(service.assigned)}"] if service.assigned else []
        return Effect(Action.ADD, "Service", owner, ", ".join(about) + _drift(items))
    texts = [
        text
        for port in service.ports
        if (text := _moves(port, gained[_key(port)] - lost[_key(port)], lost[_key(port)] - gained[_key(port)]))
    ]
    return Effect(Action.CHANGE, "Service", owner, ("; ".join(texts) or f"objects: {_counts(items)}") + _drift(items))


def _endpoints(items: Iterable[Item], service: ResolvedService, *, gained: bool) -> defaultdict[_PortKey, set[str]]:
    """Return by port the endpoints that it gains, or those that it loses."""
    by_name: dict[tuple[str, str], _PortKey] = {}
    for port in service.ports:
        by_name[port.family.value, port.label] = _key(port)
        if port.cluster_ip is not None:
            by_name[port.family.value, _frontend(port)] = _key(port)
    moved: defaultdict[_PortKey, set[str]] = defaultdict(set)
    for item in items:
        for endpoint in item.endpoints:
            named = by_name.get((item.family, endpoint.of)) if endpoint.is_gained is gained else None
            if named is not None:
                moved[named].add(endpoint.text)
    return moved


def _key(port: ResolvedPort) -> _PortKey:
    """Return what identifies a port in its Service; the port itself would be hashed with all its endpoints."""
    return port.family.value, port.label


def _frontend(port: ResolvedPort) -> str:
    """Return what clients in the cluster connect to, as items of plans have it; empty without a ClusterIP."""
    return f"{port.protocol} {join_host_port(port.cluster_ip, port.port)}" if port.cluster_ip is not None else ""


def _is_new(items: Sequence[Item], service: ResolvedService, gained: Mapping[_PortKey, set[str]]) -> bool:
    """Whether nothing of the Service was there before: all its ClusterIPs and all their endpoints are added."""
    if any(item.action is not Action.ADD for item in items):
        return False
    frontends = {(item.family, item.frontend) for item in items if item.frontend}
    return bool(frontends) and all(
        (port.family.value, _frontend(port)) in frontends
        and {endpoint.text for endpoint in port.endpoints} <= gained.get(_key(port), set())
        for port in service.ports
        if port.cluster_ip is not None
    )


def _moves(port: ResolvedPort, gained: set[str], lost: set[str]) -> str:
    """Return what a port gains and loses, with the numbers before and after."""
    if not gained and not lost:
        return ""
    after = len(port.endpoints)
    before = after - len(gained) + len(lost)
    parts = [f"{verb} {_listed(names)}" for verb, names in (("gains", gained), ("loses", lost)) if names]
    return f"{port.name or port.port} {' and '.join(parts)} ({before} → {after})"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if len(names) < _NAMES_LISTED else counted_noun(len(names), "endpoint")


def _joint(items: Iterable[Item]) -> Action:
    """Return the action of all items; CHANGE if they differ."""
    actions = {item.action for item in items}
    return actions.pop() if len(actions) == 1 else Action.CHANGE


def _counts(items: Iterable[Item]) -> str:
    """Return how many objects are added, changed and deleted."""
    actions = [item.action for item in items]
    return ", ".join(f"{actions.count(action):,} to {action.word}" for action in Action if action in actions)


def _drift(items: Iterable[Item]) -> str:
    return "; repairs drift" if any(item.drift for item in items) else ""
