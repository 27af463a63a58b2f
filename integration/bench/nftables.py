"""What the netlink part of nftables mode costs in layout `flat`. Run as a process inside a namespace of its own."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from integration.bench.worlds import ENDPOINTS
from rulegen.diff.changes import Change, diff
from rulegen.host.nftables.changes import transactions
from rulegen.host.nftables.kernel.dump import read_table
from rulegen.host.nftables.kernel.objects import NftMessage, TableName
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.languages.nftables.expressions import Concat, MapLookup, Meta, Numgen, Payload, SetReference, VerdictCode
from rulegen.languages.nftables.state import (
    BaseChain,
    ElementValue,
    NamedSet,
    NftChain,
    NftKey,
    NftObjects,
    TableValue,
    chain_key,
    element_key,
    set_key,
    table_key,
)
from rulegen.languages.nftables.statements import Dnat, NftRule, VerdictLookup
from rulegen.net import Family

OUTSIDE = "RULEGEN_BENCH_OUTSIDE"
"""Variable that names the namespace outside, which nothing is to be written to."""
TABLE = "rulegen-bench"
PER_MAP = 30_000
"""The most elements of a map: the kernel's time to list one grows with the square of it."""
CHANGES = 200
FRONTEND = Concat((Payload("ip", "daddr"), Meta("l4proto"), Payload("th", "dport")))
KEY = ("ipv4_addr", "inet_proto", "inet_service")


def service_key(number: int) -> tuple[str, str, str]:
    """Return the frontend of a Service."""
    return str(IPv4Address(0x0A600000 + number)), "tcp", "80"


def endpoint(service: int, place: int, turn: int = 0) -> tuple[str, str]:
    """Return an endpoint of a Service; another one in each turn."""
    return str(IPv4Address(0x0B000000 + (service * ENDPOINTS + place) + (turn << 20))), "8080"


def shards(services: int) -> Iterator[tuple[str, range]]:
    """Yield the suffixes of maps, and the Services in each of them."""
    step = PER_MAP // ENDPOINTS
    for start in range(0, services, step):
        yield f"{start // step}", range(start, min(start + step, services))


def objects(services: int) -> NftObjects:
    """Return the table of so many Services with three endpoints each."""
    content: NftObjects = {table_key(TABLE): TableValue(frozenset({"owner", "persist"}))}
    dispatch = []
    for suffix, numbers in shards(services):
        frontends, endpoints, shape = f"frontends-{suffix}", f"endpoints-{suffix}", f"shape-{suffix}"
        content[set_key(TABLE, frontends)] = NamedSet(KEY, ("verdict",), size=1 << 16)
        content[set_key(TABLE, endpoints)] = NamedSet((*KEY, "mark"), ("ipv4_addr", "inet_service"), size=1 << 16)
        choice = Concat((*FRONTEND.parts, Numgen("random", ENDPOINTS)))
        rule = NftRule((Dnat(MapLookup(choice, SetReference(endpoints))),))
        content[chain_key(TABLE, shape)] = NftChain((rule,))
        dispatch.append(NftRule((VerdictLookup(FRONTEND, SetReference(frontends)),)))
        to_shape = ElementValue(VerdictCode("goto", shape))
        for number in numbers:
            content[element_key(TABLE, frontends, service_key(number))] = to_shape
            for place in range(ENDPOINTS):
                key = element_key(TABLE, endpoints, (*service_key(number), f"0x{place:08x}"))
                content[key] = ElementValue(endpoint(number, place))
    for hook in ("prerouting", "output"):
        content[chain_key(TABLE, f"nat-{hook}")] = NftChain(tuple(dispatch), BaseChain("nat", hook, -100))
    return content


def one_endpoint(content: NftObjects, service: int, turn: int) -> list[Change[NftKey, ElementValue]]:
    """Return the changes when one endpoint of a Service is another one."""
    suffix = str(service // (PER_MAP // ENDPOINTS))
    key = element_key(TABLE, f"endpoints-{suffix}", (*service_key(service), "0x00000001"))
    return [Change(key, content[key], ElementValue(endpoint(service, 1, turn)))]


def first_load(link: NftSocket, content: NftObjects) -> dict[str, float]:
    """Write everything into an empty kernel."""
    start = time.perf_counter()
    written = transactions(Family.IPV4, diff({}, content), content)
    encoded = time.perf_counter()
    for each in written:
        link.commit(each.requests)
    return {
        "encoding": encoded - start,
        "kernel": time.perf_counter() - encoded,
        "transactions": len(written),
        "bytes": sum(len(request.attributes) for each in written for request in each.requests),
    }


def single_changes(link: NftSocket, content: NftObjects, services: int) -> dict[str, float]:
    """Change one endpoint, again and again: from the changed object to the acknowledgement of the kernel."""
    whole, kernel = [], []
    for turn in range(1, CHANGES):
        changes = one_endpoint(content, turn * 37 % services, turn)
        start = time.perf_counter()
        requests: list[NftMessage] = transactions(Family.IPV4, changes, content)[0].requests
        encoded = time.perf_counter()
        link.commit(requests)
        end = time.perf_counter()
        whole.append(end - start)
        kernel.append(end - encoded)
        content[changes[0].key] = changes[0].after
    return {"change": statistics.median(whole), "kernel part of a change": statistics.median(kernel)}


def main(services: int) -> dict[str, float]:
    """Measure in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: run `make bench`")
    content = objects(services)
    gc.freeze()
    gc.disable()
    link = NftSocket()
    results = first_load(link, content)
    results |= single_changes(link, content, services)
    start = time.perf_counter()
    table = read_table(link, TableName(2, TABLE))
    elements = sum(map(len, table.elements.values()))
    results |= {"read back": time.perf_counter() - start, "elements": elements}
    if elements != services * (ENDPOINTS + 1):
        raise SystemExit(f"the kernel has {elements} elements")
    return results


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1])), sys.stdout)
