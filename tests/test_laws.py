"""The laws that hold for any world and any node: tried on random ones, by a kernel in memory that really executes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.backends.iptables import node as iptables_node
from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.plan import plan_cleanup, plan_node
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.iptables.merging import step
from rulegen.languages.iptables.ruleset import read, read_rule, target
from rulegen.languages.iptables.script import script
from rulegen.languages.iptables.state import owned_objects, wanted
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_network
from tests.kernels.kernel import Kernel, commits
from tests.kernels.observed import observing
from tests.sizes import examples
from tests.strategies.services import NODE, worlds

OPTIONS = Options(node_name=NODE, cluster_cidrs=(parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/56")))
FOREIGN = (
    ("filter", "INPUT", "-s 192.0.2.1/32 -j ACCEPT"),
    ("filter", "MINE", '-m comment --comment "mine, \\"all\\" mine" -j DROP'),
    ("nat", "POSTROUTING", "-s 172.17.0.0/16 -j MASQUERADE"),
    ("nat", "DOCKER", "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
    ("nat", "KUBE-MARK-DROP", "-j MARK --set-xmark 0x8000/0x8000"),
    ("mangle", "KUBE-KUBELET-CANARY", None),
)

quick = settings(
    max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
chunk_sizes = st.sampled_from((None, 3, 400))


def compiled(world: ClusterSnapshot, *, counts: bool = False) -> Compiled:
    return compile_model(resolve(world, OPTIONS, HostFacts()), "iptables", counts=counts)


def foreign_kernel() -> Kernel:
    kernel = Kernel()
    for table, chain, rule in FOREIGN:
        rules = kernel.tables[table].setdefault(chain, [])
        if rule is not None:
            rules.append(rule)
    return kernel


def foreign_part(kernel: Kernel) -> list[str]:
    return [
        f"{table} {chain} {rule}"
        for table, chains in kernel.tables.items()
        for chain, rules in chains.items()
        for rule in [*rules, "(chain)"]
        if (not chain.startswith("KUBE-") or chain in {"KUBE-MARK-DROP", "KUBE-KUBELET-CANARY"})
        and not target(read_rule(rule)).startswith("KUBE-")
    ]


def scripts(kernel: Kernel, wants: Compiled, family: Family, chunk: int | None) -> Iterator[str]:
    part = plan_node(wants, observing(rulesets={family: read(kernel.save(), "kernel", family)}), HostFacts()).of(
        "iptables"
    )[family]
    return (restore.text for restore in script(part.changes, part.desired, chains_per_commit=chunk))


def apply(kernel: Kernel, wants: Compiled, family: Family, chunk: int | None = None) -> None:
    for text in scripts(kernel, wants, family, chunk):
        kernel.restore(text)


def is_converged(kernel: Kernel, wants: Compiled, family: Family) -> bool:
    return plan_node(wants, observing(rulesets={family: read(kernel.save(), "kernel", family)}), HostFacts()).is_empty


@quick
@given(worlds(), worlds(), st.sampled_from(tuple(Family)), chunk_sizes, st.booleans())
def test_apply_then_plan_is_empty_from_any_other_world(before, after, family, chunk, counts):
    kernel = foreign_kernel()
    foreign = foreign_part(kernel)
    apply(kernel, compiled(before, counts=counts), family, chunk)
    assert is_converged(kernel, compiled(before, counts=counts), family)
    apply(kernel, compiled(after, counts=not counts), family, chunk)
    assert is_converged(kernel, compiled(after, counts=not counts), family)
    assert foreign_part(kernel) == foreign


@quick
@given(worlds(), worlds(), chunk_sizes, st.booleans(), st.integers(0, 2**32), st.data())
def test_apply_completes_what_was_interrupted_anywhere(before, after, chunk, counts, seed, data):
    kernel = foreign_kernel()
    apply(kernel, compiled(before, counts=counts), Family.IPV4, chunk)
    wants = compiled(after, counts=counts)
    pieces = [commit for text in scripts(kernel, wants, Family.IPV4, chunk) for commit in commits(text)]
    for commit in pieces[: data.draw(st.integers(0, len(pieces)))]:
        kernel.commit(commit)
    damage(kernel, random.Random(seed))
    apply(kernel, wants, Family.IPV4, chunk)
    assert is_converged(kernel, wants, Family.IPV4)


def damage(kernel: Kernel, chance: random.Random) -> None:
    """Edit by hand: take rules away, double, move and add some, in our chains and in the jumps to them."""
    for chains in kernel.tables.values():
        for chain, rules in chains.items():
            ours = [rule for rule in rules if chain.startswith("KUBE-") or target(read_rule(rule)).startswith("KUBE-")]
            if not ours or chain in {"KUBE-MARK-DROP", "KUBE-KUBELET-CANARY"} or chance.random() < 0.6:
                continue
            rule = chance.choice(ours)
            match chance.randrange(5):
                case 0:
                    rules.remove(rule)
                case 4:
                    rules.append(rule)
                case 1:
                    rules.insert(0, rule)
                case 2 if chain.startswith("KUBE-"):
                    rules.insert(0, "-s 192.0.2.9/32 -j ACCEPT")
                case _:
                    rules.remove(rule)
                    rules.append(rule)


@quick
@given(worlds(), worlds(), chunk_sizes)
def test_connections_work_after_every_commit(before, after, chunk):
    kernel = foreign_kernel()
    apply(kernel, compiled(before), Family.IPV4, chunk)
    wants = compiled(after)
    old, goal = delivered(kernel), Kernel()
    apply(goal, wants, Family.IPV4)
    new = delivered(goal)
    right = set().union(*new.values()) if new else set()  # a frontend may change hands: then an end of its old owner's
    for text in scripts(kernel, wants, Family.IPV4, chunk):
        for commit in commits(text):
            kernel.commit(commit)
            now = delivered(kernel)
            for frontend in old.keys() & new.keys():
                assert now.get(frontend), f"{frontend} leads nowhere after {commit[:3]}"
                assert now[frontend] <= old[frontend] | right


def delivered(kernel: Kernel) -> dict[str, set[str]]:
    """Return where each frontend in KUBE-SERVICES and KUBE-NODEPORTS can end: the texts of DNAT rules."""
    nat = kernel.tables["nat"]
    reached: dict[str, set[str]] = {}
    if not any("KUBE-SERVICES" in rule for rule in nat["PREROUTING"]):
        return {}
    for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS"):
        for rule in nat.get(chain, ()):
            read = read_rule(rule)
            if "--dport" in read.spec:
                frontend = read.spec.partition(" -j ")[0]
                reached.setdefault(frontend, set()).update(_ends(nat, target(read)))
    return {frontend: ends for frontend, ends in reached.items() if ends}


def _ends(nat: dict[str, list[str]], chain: str) -> Iterator[str]:
    for rule in nat.get(chain, ()):
        read = read_rule(rule)
        if target(read) == "DNAT":
            yield read.spec.rpartition(" ")[2]
        elif target(read) in nat:
            yield from _ends(nat, target(read))


@quick
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_means_nothing(world, chance):
    shuffled = list(world.services.items())
    chance.shuffle(shuffled)
    other = ClusterSnapshot(services=dict(shuffled), nodes=world.nodes)
    for family in Family:
        texts = [
            "".join(r.text for r in script(p.of("iptables")[family].changes, p.of("iptables")[family].desired))
            for p in (
                plan_node(compiled(w), observing(rulesets={family: read("", "", family)}), HostFacts())
                for w in (world, other)
            )
        ]
        assert texts[0] == texts[1]


@quick
@given(worlds(), worlds())
def test_steps_of_single_services_end_where_the_whole_ends(before, after):
    kernel = foreign_kernel()
    old, new = compiled(before), compiled(after)
    apply(kernel, old, Family.IPV4)
    had = {fragment.owner: fragment for fragment in old.rules(Family.IPV4)}
    wants = {fragment.owner: fragment for fragment in new.rules(Family.IPV4)}
    for owner in sorted(had.keys() | wants.keys()):
        empty = type(new.rules(Family.IPV4)[0])(owner, Family.IPV4)
        for restore in script(step(had.get(owner, empty), wants.get(owner, empty))):
            kernel.restore(restore.text)
    assert is_converged(kernel, new, Family.IPV4)


@quick
@given(worlds(), st.sampled_from(tuple(Family)), chunk_sizes)
def test_cleanup_leaves_nothing_of_ours_and_all_of_others(world, family, chunk):
    kernel = foreign_kernel()
    before = kernel.save()
    del kernel.tables["mangle"]["KUBE-KUBELET-CANARY"]
    clean = kernel.save()
    apply(kernel, compiled(world), family)
    for _ in range(2):
        observed = observing(rulesets={family: read(kernel.save(), "kernel", family)})
        part = plan_cleanup("iptables", observed).of("iptables")[family]
        for restore in script(part.changes, part.desired, chains_per_commit=chunk):
            kernel.restore(restore.text)
    assert kernel.save() == clean != before


@quick
@given(worlds())
def test_a_kernel_that_took_our_rules_prints_what_we_wrote(world):
    wants = compiled(world)
    for family in Family:
        kernel = Kernel()
        apply(kernel, wants, family)
        layout = iptables_node.layout(wants.model.nodes[family], read("", "", family))
        assert owned_objects(read(kernel.save(), "kernel", family), layout) == wanted(wants.rules(family)).objects
