"""Any sequence of changes, failures, refusals and damage: at its end, the node is as a fresh process would leave it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.compiler.services.compile import compile_model, with_held
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.services.pinned import held
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.services.update import Update
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.cluster import Touched
from rulegen.model.services.ir import Semantics
from rulegen.model.services.limits import ServiceLimits
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from rulegen.plan.fragments import OwnedObjects
from rulegen.plan.plan import Plan
from tests.compiler.services.test_services import (
    MODES,
    Node,
    api_server_events,
    changed,
    endpoints,
    host_changes,
    meeting_events,
    node_events,
    quick,
    service,
    service_events,
)
from tests.strategies.services import SERVICES


class Agent(Node):
    """A node whose agent does in each case what the real one does, and whose kernel fails, refuses and is changed."""

    def __init__(self, mode: str, **chosen: object) -> None:
        super().__init__(mode, **chosen)
        self.held: tuple[OwnedObjects, ...] = ()
        self.left_out: frozenset[ObjectName] = frozenset()

    def put(self, plan: Plan, pieces: int | None) -> bool:
        """Write some pieces of a plan; return whether that was all of it."""
        for number, piece in enumerate(self.kernel.pieces(plan)):
            if number == pieces:
                return False
            piece()
        return True

    def write(self, pieces: int | None, *, others: bool = False) -> None:
        """Write what has changed, as far as the kernel takes it; a failure has all read by the next write."""
        rules, names, self.dirty = self.rules, self.dirty.services, Touched(nodes=self.dirty.nodes)
        if rules is None or self.dirty.nodes:
            self.dirty.services |= names
            self.check_kernel(pieces)
            return
        update = rules.update(names)
        if others:
            self.beside(rules.update_beside({ObjectName("demo", SERVICES[0])} - update.services.keys(), update))
        if self.put(update.plan, pieces):
            rules.commit(update)
        else:
            self.dirty.services |= names
            self.check_kernel(None)

    def beside(self, update: Update | None) -> None:
        if update is not None and self.rules is not None:
            self.kernel.write(update.plan)
            self.rules.commit(update)

    def check_kernel(self, pieces: int | None) -> None:
        """Read all, compare, write the difference as far as the kernel takes it."""
        names, has_node, self.dirty = self.dirty.services, self.dirty.nodes, Touched()
        if has_node or (self.rules is not None and self.rules.is_behind):
            self.rules = None
        is_first = self.rules is None
        if self.rules is None:
            left = self.left_out
            self.rules = ServiceRules(self.cluster, self.options, self.facts, counts=False)
            if left - names:
                self.leave_out(left - names)
        elif names:
            self.rules.commit(self.rules.update(names), is_written=False)
        plan = plan_node(self.rules.compiled(), self.kernel.observed(), self.facts)
        if self.put(plan, pieces):
            self.rules.remember_kernel_state(plan)
            self.note_held()
            return
        self.rules, self.dirty.services = None, self.dirty.services | names
        self.dirty.nodes |= is_first

    def note_held(self) -> None:
        self.held, self.left_out = self.rules.held, self.rules.left_out

    def refuse(self, names: set[ObjectName]) -> None:
        """Have the kernel refuse the form that some Services have now."""
        if self.rules is None or self.dirty.nodes:
            return
        changed, self.dirty = self.dirty.services, Touched()
        self.rules.commit(self.rules.update(changed), is_written=False)
        self.leave_out({name for name in names if self.rules.before(name) is not None})
        plan = plan_node(self.rules.compiled(), self.kernel.observed(), self.facts)
        self.put(plan, None)
        self.rules.remember_kernel_state(plan)
        self.note_held()

    def leave_out(self, names: set[ObjectName]) -> None:
        names = {name for name in names if self.rules.before(name) is not None}
        owners = {str(name) for name in names}
        there = held(self.rules.compiled(), self.kernel.observed(), owners)
        known = [fragment for fragment in self.held if fragment.owner in owners]
        self.rules.leave_out(names, [*there, *known])
        self.rules.commit(self.rules.update(()))

    def damage(self, number: int) -> None:
        """Have somebody empty a chain of ours, or delete a rule of it; the next check sees it."""
        for kernel in self.kernels.values():
            chains = [(t, c) for t, of in kernel.tables.items() for c, rules in of.items() if rules]
            if chains:
                table, chain = chains[number % len(chains)]
                del kernel.tables[table][chain][number % len(kernel.tables[table][chain])]

    def check_others(self) -> None:
        """Fail unless all others are served as if what is left out were not there; it is not looked at once dirty."""
        if self.rules is None or self.rules.is_behind or self.dirty:
            return
        world = self.cluster.world()
        services = {name: service for name, service in world.services.items() if name not in self.rules.left_out}
        model = resolve(msgspec.structs.replace(world, services=services), self.options, self.facts)
        assert self.rules.compiled().model.services == model.services
        wants = with_held(compile_model(model, self.options.mode, counts=False), self.rules.held)
        assert [str(item.name) for item in plan_node(wants, self.kernel.observed(), self.facts).items] == []

    def settle(self) -> None:
        """Serve what is left out again, write what is left, and look at all once."""
        self.dirty.services |= self.rules.left_out if self.rules is not None else self.left_out
        self.write(None)
        self.check_kernel(None)
        self.dirty = Touched()


@pytest.mark.parametrize("way", [Agent.write, Agent.check_kernel])
def test_a_rejected_change_keeps_what_was_written_last(way):
    agent = Agent("iptables")
    agent.take([changed(service(0)), changed(endpoints(0, 1))])
    agent.check_kernel(None)
    agent.take([changed(endpoints(0, 2))])
    way(agent, None)
    agent.take([changed(endpoints(0, 3))])
    agent.refuse({ObjectName("demo", "web-0")})
    rules = [rule for rules in agent.kernels[Family.IPV4].tables["nat"].values() for rule in rules]
    ends = sorted(rule.rpartition(" ")[2] for rule in rules if "-j DNAT" in rule)
    assert ends == ["10.244.1.10:8080", "10.244.1.11:8080"]


pieces = st.one_of(st.none(), st.none(), st.integers(0, 6))
events = st.one_of(
    service_events(), service_events(), meeting_events(), meeting_events(), node_events(), api_server_events()
)
names = st.sets(st.sampled_from([ObjectName("demo", name) for name in SERVICES]), max_size=2)
moves = st.one_of(
    st.tuples(st.just("events"), events),
    st.tuples(st.just("events"), events),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("others"), pieces),
    st.tuples(st.just("check"), pieces),
    st.tuples(st.just("refuse"), names),
    st.tuples(st.just("damage"), st.integers(0, 30)),
    st.tuples(st.just("host"), host_changes()),
    st.tuples(st.just("comments"), st.none()),
)
limits = st.sampled_from((ServiceLimits(), ServiceLimits(endpoints=5, frontends=3), ServiceLimits(frontends=1)))


@quick
@given(st.lists(moves, min_size=2, max_size=16), MODES, limits, st.sampled_from(Semantics), st.booleans())
@pytest.mark.slow
def test_after_any_sequence_the_node_matches_a_fresh_process(moves, mode, limits, semantics, oldest):
    agent = Agent(mode, limits=limits, external_ip_semantics=semantics, oldest_claim_wins=oldest)
    for what, given_ in moves:
        match what:
            case "events":
                agent.take(given_)
            case "write" | "others":
                agent.write(given_, others=what == "others")
            case "check":
                agent.check_kernel(given_)
            case "refuse":
                agent.refuse(given_)
            case "damage":
                agent.damage(given_)
                agent.check_kernel(None)
            case "host":
                agent.move(given_)
            case "comments" if agent.rules is not None:
                agent.rules.settle_comments()
        agent.check_others()
    agent.settle()
    agent.check()
