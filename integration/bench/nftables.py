"""What nftables mode costs, from objects to the kernel. Run as a process inside a network namespace of its own.

`python -m integration.bench.nftables SERVICES [LAYOUT [CHANGES]]` prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from integration.bench.ipvs import cluster_of, decoded
from integration.bench.stages import OPTIONS
from integration.bench.worlds import ENDPOINTS, endpoint_slice
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import TABLES
from rulegen.host.commands.runner import run
from rulegen.host.dataplane.apply import perform, steps
from rulegen.host.dataplane.driver import WriteContext
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.nftables_driver import NftablesDriver
from rulegen.host.netfilter.variant import Variant
from rulegen.host.nftables.guard import TableGuard
from rulegen.host.nftables.kernel.dump import read_table
from rulegen.host.nftables.kernel.objects import NftMessage, TableName
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.languages.nftables.language import NAME
from rulegen.model.host.facts import HostFacts
from rulegen.net import Family
from rulegen.ownership.nftables import LAYOUTS

OUTSIDE = "RULEGEN_BENCH_OUTSIDE"
"""Variable that names the namespace outside, which nothing is to be written to."""
CHANGES = 500
FACTS = HostFacts(ipv6=False)
EMPTY = Observed(families=(Family.IPV4,), states={(NAME, Family.IPV4): {}})
CONTEXT = WriteContext(run=run, variant=Variant.NFT, wait_s=60)


class NetlinkPart:
    """Counts what the netlink part of writes costs, and the processes that are started meanwhile."""

    def __init__(self) -> None:
        self.seconds, self.transactions, self.bytes, self.processes = 0.0, 0, 0, 0
        self.processor = 0.0
        commit = NftSocket.commit

        def measured(link: NftSocket, requests: Sequence[NftMessage]) -> None:
            began, used = time.perf_counter(), time.thread_time()
            commit(link, requests)
            self.seconds += time.perf_counter() - began
            self.processor += time.thread_time() - used
            self.transactions += 1
            self.bytes += sum(len(request.attributes) for request in requests)

        NftSocket.commit = measured  # type: ignore[method-assign, assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: object) -> None:
        self.processes += event in {"subprocess.Popen", "os.posix_spawn", "os.fork"}

    def taken(self) -> tuple[float, int, int, int]:
        """Return all counts, and begin anew."""
        counted = self.seconds, self.transactions, self.bytes, self.processes
        self.seconds, self.transactions, self.bytes, self.processes, self.processor = 0.0, 0, 0, 0, 0.0
        return counted


class NftMode:
    """The mode with one layout, and what writes it."""

    def __init__(self, layout: str) -> None:
        self.tables = TABLES.with_layout(layout)
        guard = TableGuard(run) if layout == "flat" else None
        self.drivers = {**DRIVERS, NAME: NftablesDriver(guard)}
        self.part = NetlinkPart()

    def rules_of(self, cluster: Cluster) -> ServiceRules:
        """Return the rules of a cluster."""
        return ServiceRules(
            cluster, msgspec.structs.replace(OPTIONS, mode="nftables"), FACTS, counts=False, tables=self.tables
        )

    def first_load(self, cluster: Cluster) -> tuple[ServiceRules, dict[str, float]]:
        """Write everything into a kernel that has nothing: from objects to the acknowledgement."""
        began, used = time.perf_counter(), time.process_time()
        rules = self.rules_of(cluster)
        plan = plan_node(rules.compiled(), EMPTY, FACTS)
        planned = time.perf_counter()
        self.part.taken()
        perform(steps(msgspec.structs.replace(plan, sysctls=()), CONTEXT, tables=self.tables, drivers=self.drivers))
        end = time.perf_counter()
        used, in_kernel = time.process_time() - used, self.part.processor
        seconds, transactions, size, _ = self.part.taken()
        rules.remember_kernel_state(plan)
        return rules, {
            "whole": end - began,
            "whole, processor time": used,
            "resolve, compile and diff": planned - began,
            "kernel": seconds,
            "kernel, processor time": in_kernel,
            "transactions": transactions,
            "bytes": size,
        }

    def changes(
        self, cluster: Cluster, rules: ServiceRules, reports: Iterable[dict[str, Any]], what: str
    ) -> dict[str, float]:
        """Change one slice after the other: from the event to the acknowledgement of the kernel."""
        whole, processor, kernel, in_kernel, processes, transactions = [], [], [], [], 0, set()
        for reported in reports:
            name = ObjectName(reported["metadata"]["namespace"], reported["metadata"]["name"])
            event = Changed(k.EndpointSlice, decoded(reported, k.EndpointSlice), name)
            self.part.taken()
            began, used = time.perf_counter(), time.process_time()
            update = rules.update(cluster.apply_event(event).services)
            perform(steps(update.plan, CONTEXT, tables=self.tables, drivers=self.drivers))
            rules.commit(update)
            whole.append(time.perf_counter() - began)
            processor.append(time.process_time() - used)
            in_kernel.append(self.part.processor)
            seconds, commits, _, started = self.part.taken()
            kernel.append(seconds)
            processes += started
            transactions.add(commits)
        whole.sort()
        return {
            f"{what}, median": statistics.median(whole),
            f"{what}, p99": whole[int(len(whole) * 0.99)],
            f"{what}, slowest": whole[-1],
            f"{what}, processor time": statistics.median(processor),
            f"{what}, processor time, p99": sorted(processor)[int(len(processor) * 0.99)],
            f"{what}, netlink part": statistics.median(kernel),
            f"{what}, netlink part, processor time": statistics.median(in_kernel),
            f"{what}, processes": processes,
            f"{what}, transactions": max(transactions),
        }


def replaced(services: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield slices in which one endpoint has another address."""
    for turn in range(count):
        reported = endpoint_slice(turn * 7919 % services)
        reported["endpoints"][1]["addresses"] = [f"10.250.{turn // 250}.{turn % 250 + 1}"]
        yield reported


def fewer_or_more(services: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield slices in which an endpoint leaves or comes: the Service then needs a chain for another number of them."""
    for turn in range(count):
        yield endpoint_slice(turn // 2 * 7907 % services, ENDPOINTS - 1 + turn % 2)


def main(services: int, layout: str = "flat", count: int = CHANGES) -> dict[str, float]:
    """Measure in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: run `make bench`")
    mode = NftMode(layout)
    cluster = cluster_of(services)
    gc.collect()
    gc.freeze()
    gc.disable()  # as the agent, which collects while nothing happens
    rules, results = mode.first_load(cluster)
    results |= mode.changes(cluster, rules, replaced(services, count), "replaced")
    results |= mode.changes(cluster, rules, fewer_or_more(services, count), "fewer or more")
    began = time.perf_counter()
    table = read_table(NftSocket(), TableName(2, LAYOUTS[layout].table))
    results["read back"] = time.perf_counter() - began
    results["elements"] = sum(map(len, table.elements.values()))
    if results["elements"] < services * (ENDPOINTS + 1 if layout == "flat" else 1):
        raise SystemExit(f"the kernel has {results['elements']} elements")
    return results


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1]), *sys.argv[2:3], *map(int, sys.argv[3:])), sys.stdout)
