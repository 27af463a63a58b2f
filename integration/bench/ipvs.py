"""What IPVS mode costs, inside a user-mode Linux: `python -m integration.bench.ipvs SERVICES` prints one line of JSON.

Read its figures beside each other only: system calls cost several times what they cost elsewhere. The namespace of the
whole kernel is ours to fill.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from socket import socket

import msgspec
from msgspec.structs import replace

from integration.bench.stages import OPTIONS
from integration.bench.worlds import endpoint_slice, objects
from integration.uml.machine import is_inside
from rulegen.backends.table import BACKENDS
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.plan import plan_node
from rulegen.diff.changes import diff
from rulegen.errors import Rejected
from rulegen.host.commands.runner import Command, Completed, run
from rulegen.host.dataplane.apply import perform, steps
from rulegen.host.dataplane.driver import ReadContext, WriteContext
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.observe import observed, read_kernel
from rulegen.host.ipvs import addresses
from rulegen.host.ipvs import servers as ipvs
from rulegen.host.netfilter import ipset
from rulegen.host.netfilter.variant import Variant
from rulegen.host.netlink import messages as netlink
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Listed
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.reading.decode import decode_object
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.languages.addresses.script import script as links_script
from rulegen.languages.ipset.state import format_sets
from rulegen.languages.ipvs.state import RealServerKey
from rulegen.languages.ipvs.text import format_servers
from rulegen.model.host.facts import HostFacts
from rulegen.net import Family

TRIES = 7
FACTS = HostFacts(ipv6=False)
VARIANT = Variant.LEGACY


class Calls:
    """Counts messages to the kernel and processes, whoever starts them."""

    def __init__(self) -> None:
        self.messages = self.processes = 0
        self._acknowledged = netlink.acknowledged
        netlink.acknowledged = self._count

    def _count(self, link: socket, requests: Sequence[bytes]) -> list[int]:
        self.messages += len(requests)
        return self._acknowledged(link, requests)

    def run(self, command: Command) -> Completed:
        """Run a tool."""
        self.processes += 1
        return run(command)

    def taken(self) -> tuple[int, int]:
        """Return both counts, and begin anew."""
        counted = self.messages, self.processes
        self.messages = self.processes = 0
        return counted


def seconds(work: Callable[[], object]) -> float:
    """Return how long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decoded(reported: object, kind: type[KubeObject]) -> Decoded:
    """Return an object as the API server tells it."""
    results = decode_object(msgspec.json.encode(reported), kind)
    if isinstance(results, Rejected):
        raise SystemExit(str(results.faults))
    return results


def cluster_of(services: int) -> Cluster:
    """Return a cluster of so many Services with three endpoints each."""
    cluster = Cluster()
    for kind in (k.Node, k.Service, k.EndpointSlice):
        reported = (decoded(document, kind) for document in objects(services) if document["kind"] == kind.__name__)
        cluster.apply_event(Listed(kind, tuple(reported)))
    return cluster


def seen() -> Observed:
    """Return what the kernel has."""
    context = ReadContext(
        run=run, variant=VARIANT, families=(Family.IPV4,), needed=frozenset(BACKENDS["ipvs"].languages)
    )
    return observed(DRIVERS, read_kernel(DRIVERS, context), context)


def first_sync(rules: ServiceRules, calls: Calls) -> dict[str, float]:
    """Write everything into a kernel that has nothing."""
    observed = seen()
    plan = plan_node(rules.compiled(), observed, FACTS)
    work = steps(replace(plan, sysctls=()), WriteContext(run=calls.run, variant=VARIANT, wait_s=60))
    calls.taken()
    collected = {"first sync": seconds(lambda: perform(work))}
    collected["messages"], collected["processes"] = calls.taken()
    rules.remember_kernel_state(plan)
    return collected


def changes(cluster: Cluster, rules: ServiceRules, calls: Calls) -> dict[str, float]:
    """Take an endpoint of a Service away, from the slice to the kernel."""
    times, messages, processes = [], set(), set()
    for number in range(TRIES):
        reported = endpoint_slice(number, 2)
        name = ObjectName(reported["metadata"]["namespace"], reported["metadata"]["name"])
        event = Changed(k.EndpointSlice, decoded(reported, k.EndpointSlice), name)
        calls.taken()
        start = time.perf_counter()
        update = rules.update(cluster.apply_event(event).services)
        perform(steps(update.plan, WriteContext(run=calls.run, variant=VARIANT, wait_s=60)))
        rules.commit(update)
        times.append(time.perf_counter() - start)
        counted = calls.taken()
        messages.add(counted[0])
        processes.add(counted[1])
    return {
        "one endpoint changed": statistics.median(times),
        "its messages": max(messages),
        "its processes": max(processes),
    }


def by_tools(rules: ServiceRules) -> Iterator[tuple[str, float]]:
    """Write the same state with the tools' own formats, into a kernel that has none of it."""
    servers, sets = ipvs.observe(), ipset.observe(run)
    bound = addresses.observe("kube-ipvs0")
    if len([key for key in servers if isinstance(key, RealServerKey)]) < len(rules.services):
        raise SystemExit("the kernel has not what was written")

    def tool(*argv: str, stdin: str = "") -> None:
        ended = run(Command(argv, stdin, timeout_s=600))
        if ended.code:
            raise SystemExit(f"{argv}: {ended.stderr}")

    texts = format_servers(servers), format_sets(sets)
    batch = "".join(f"{command}\n" for command in links_script(diff({}, dict(bound.addresses))).bind)
    tool("iptables-legacy", "-t", "nat", "-F")
    tool("iptables-legacy", "-F")
    tool("ipvsadm", "-C")
    tool("ipset", "destroy")
    tool("ip", "link", "del", "kube-ipvs0")
    tool("ip", "link", "add", "kube-ipvs0", "type", "dummy")
    yield "ipvsadm -R", seconds(lambda: tool("ipvsadm", "-R", stdin=texts[0]))
    yield "ipset restore", seconds(lambda: tool("ipset", "restore", stdin=texts[1]))
    yield "ip -batch", seconds(lambda: tool("ip", "-batch", "-", stdin=batch))


def main(services: int) -> dict[str, float]:
    """Measure one size in this kernel, which must be empty."""
    if not is_inside():
        raise SystemExit("this fills the kernel that it runs in: run `make bench`")
    ipvs.load(run, ["rr"])
    calls = Calls()
    cluster = cluster_of(services)
    rules = ServiceRules(cluster, replace(OPTIONS, mode="ipvs"), FACTS, counts=False)
    # Not switched off: a process in there has no more than 65,530 pages, a limit of the machine outside.
    gc.collect()
    gc.freeze()
    results = first_sync(rules, calls)
    results["read back"] = seconds(seen)
    results |= changes(cluster, rules, calls)
    return results | dict(by_tools(rules))


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1])), sys.stdout)
    print()
