"""What writing to a real kernel costs. Run as a process inside a network namespace of its own, which it fills."""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from integration.bench.stages import OPTIONS
from integration.bench.worlds import endpoint_slice
from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.plan import plan_node
from rulegen.host.commands.runner import run
from rulegen.host.dataplane.apply import perform, steps
from rulegen.host.dataplane.driver import WriteContext
from rulegen.host.files.manifests import read_sources
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.variant import Variant
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import EndpointSlice
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.iptables.merging import step
from rulegen.languages.iptables.ruleset import Ruleset, read
from rulegen.languages.iptables.script import script
from rulegen.languages.iptables.state import RulesFragment, ruleset_of
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from tests.kernels.observed import observing

TRIES = 7
OUTSIDE = "RULEGEN_BENCH_OUTSIDE"
"""Variable that names the namespace outside, which nothing is to be written to."""

EMPTY = "*nat\nCOMMIT\n"
ONE_RULE = "*nat\n:KUBE-SVC-BENCH - [0:0]\n-A KUBE-SVC-BENCH -j ACCEPT\nCOMMIT\n"
"""The least that can be written: one rule that nothing refers to. nf_tables checks the whole table at its commit."""


def seconds(work: Callable[[], object]) -> float:
    """Return how long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work: Callable[[], object], tries: int = TRIES) -> float:
    """Return how long the work takes, as a rule."""
    return statistics.median(seconds(work) for _ in range(tries))


def compiled(world: ClusterSnapshot) -> Compiled:
    """Return the world in iptables' words."""
    return compile_model(resolve(world, OPTIONS, HostFacts(), (Family.IPV4,)), "iptables", counts=False)


def unsorted_restore(wants: Compiled) -> str:
    """Return all rules as one script with chains in any order, as kube-proxy writes them."""
    ruleset = ruleset_of(wants.rules(Family.IPV4))
    chance = random.Random(1)
    lines = []
    for table in ("filter", "mangle", "nat"):
        chains = [(name, chain) for name, chain in ruleset.chains.items() if name.table == table]
        chance.shuffle(chains)
        lines.append(f"*{table}")
        lines += (f":{name.chain} - [0:0]" for name, chain in chains if chain.policy is None)
        lines += (f"-A {name.chain} {rule.line}".rstrip() for name, chain in chains for rule in chain.rules)
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def first_apply(wants: Compiled, variant: Variant) -> dict[str, float]:
    """Write everything into an empty kernel."""
    observed = observing(rulesets={Family.IPV4: Ruleset(Family.IPV4)})
    plan = plan_node(wants, observed, HostFacts())
    work = steps(plan, WriteContext(run=run, variant=variant, wait_s=60))
    return {"first apply": seconds(lambda: perform(work)), "calls": len(work)}


def single_changes(world: ClusterSnapshot, wants: Compiled, variant: Variant) -> dict[str, float]:
    """Take an endpoint of a Service away: what is written, and how long it takes from the slice to the kernel."""
    fragments = {fragment.owner: fragment for fragment in wants.rules(Family.IPV4)}
    sizes, times = [], []
    for number in range(0, TRIES * 3, 3):
        start = time.perf_counter()
        text = _one_endpoint_less(world, fragments, number)
        iptables.restore(run, variant, Family.IPV4, text)
        times.append(time.perf_counter() - start)
        sizes.append(len(text))
    return {
        "one endpoint changed": statistics.median(times),
        "bytes written": statistics.median(sizes),
        "empty restore": median(lambda: iptables.restore(run, variant, Family.IPV4, EMPTY)),
        "one-rule restore": median(lambda: iptables.restore(run, variant, Family.IPV4, ONE_RULE)),
    }


def _one_endpoint_less(world: ClusterSnapshot, fragments: dict[str, RulesFragment], number: int) -> str:
    name = ObjectName("bench", f"svc-{number}")
    reported = msgspec.convert(endpoint_slice(number, 2), EndpointSlice)
    changed = ClusterSnapshot(services={name: replace(world.services[name], slices=(reported,))}, nodes=world.nodes)
    after = compiled(changed).rules(Family.IPV4)[1]
    (restore,) = script(step(fragments[str(name)], after))
    return restore.text


def read_back(wants: Compiled, variant: Variant) -> dict[str, float]:
    """Plan against the kernel as it is."""
    text = ""

    def save() -> None:
        nonlocal text
        text = iptables.observe(run, variant, Family.IPV4)

    saved = seconds(save)
    parsed = seconds(lambda: read(text, "kernel", Family.IPV4))
    observed = observing(rulesets={Family.IPV4: read(text, "kernel", Family.IPV4)})
    return {"save": saved, "read": parsed, "plan": seconds(lambda: plan_node(wants, observed, HostFacts()))}


def main(path: str, variant: Variant, what: str) -> dict[str, float]:
    """Measure one thing in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: run `make bench`")
    gc.disable()
    world = read_world(read_sources([path]))
    wants = compiled(world)
    if what == "unsorted":
        text = unsorted_restore(wants)
        return {"one unsorted restore": seconds(lambda: iptables.restore(run, variant, Family.IPV4, text))}
    results = first_apply(wants, variant)
    results |= read_back(wants, variant)
    return results | single_changes(world, wants, variant)


if __name__ == "__main__":
    json.dump(main(sys.argv[1], Variant(sys.argv[2]), sys.argv[3]), sys.stdout)
