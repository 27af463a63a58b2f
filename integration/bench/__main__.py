"""`python -m integration.bench [SERVICES ...]`: measure, and print a table with what was promised beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from integration.bench import worlds
from integration.bench.agent import CHANGES
from integration.bench.pods import OF_SERVICE
from integration.lab.lab import Unavailable
from integration.uml.machine import Machine

SIZES = (1_000, 10_000)
PODS = 10_000
MEMORY = ("memory", "memory after changes", "peak")
INGRESSES = (1_000, 5_000)
EVENTS = (50, 4_900)
"""A namespace may have 5,000 hosts, and the changes add some."""
PROXIED = (50, 5_000)
SERVERS = (1_000, 5_000)
INSIDE_S = 1500
NFT_CHANGES = 500


def measured(module: str, *arguments: str, namespace: bool = False, processes: bool = False) -> dict[str, float]:
    """Run one measurement as a process of its own, in namespaces of its own for the network and for processes."""
    argv = [sys.executable, "-m", f"integration.bench.{module}", *arguments]
    environment = {
        **os.environ,
        "RULEGEN_BENCH_OUTSIDE": str(Path("/proc/self/ns/net").readlink()),
    }
    spaces = ["--net"] if namespace else []
    # What is left running in there ends with it.
    spaces += ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"] if processes else []
    ended = subprocess.run(
        ["unshare", *spaces, *argv] if spaces else argv, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(argv)}: {ended.stderr.strip() or ended.returncode}")
    results: dict[str, float] = json.loads(ended.stdout)
    return results


def verdict(*, holds: bool) -> str:
    """Return the mark of a promise."""
    return "ok" if holds else "MISSED"


def line(what: str, value: str, promise: str = "", *, holds: bool | None = None) -> None:
    """Print one line of the table."""
    mark = "" if holds is None else verdict(holds=holds)
    print(f"  {what:<44} {value:>14}   {promise:<34} {mark}".rstrip(), flush=True)


def plans(file: Path, size: int) -> None:
    """Print where the time of a plan from files goes."""
    parts = measured("stages", str(file), "apart")
    whole = measured("stages", str(file))
    stages = ", ".join(f"{stage} {parts[stage]:.2f}" for stage in ("parse", "decode", "resolve", "compile", "diff"))
    print(f"\nplan -f {file.name} ({size:,} Services x {worlds.ENDPOINTS}), seconds: {stages}")
    last = sum(whole[stage] for stage in ("resolve", "compile", "diff"))
    line("resolve, compile and diff", f"{last:.2f} s", "at most 3 s at 10,000", holds=last <= 3)
    line("peak memory, without the text", f"{whole['peak_mb']:.0f} MB", "at most 350 MB", holds=whole["peak_mb"] <= 350)


def writes(file: Path, size: int) -> dict[str, float]:
    """Print what writing to the kernel costs."""
    results = measured("kernel", str(file), "nft", "all", namespace=True)
    print(f"\niptables-nft, {size:,} Services x {worlds.ENDPOINTS}")
    base = measured("kernel", str(file), "nft", "unsorted", namespace=True)["one unsorted restore"]
    line("one unsorted iptables-nft-restore", f"{base:.2f} s")
    ratio = results["first apply"] / base
    promise = "at most 1/8 of that at 10,000" if size >= 10_000 else ""
    line(f"first apply, {results['calls']:.0f} calls", f"{results['first apply']:.2f} s", promise)
    line("  as a part of it", f"1/{1 / ratio:.1f}", holds=ratio <= 1 / 8 if size >= 10_000 else None)
    line(
        "iptables-nft-save; reading it; plan", f"{results['save']:.2f}, {results['read']:.2f}, {results['plan']:.2f} s"
    )
    line("an iptables-nft-restore that commits nothing", f"{results['empty restore'] * 1000:.1f} ms")
    line("one that commits one rule nothing refers to", f"{results['one-rule restore'] * 1000:.1f} ms")
    changed = results["one endpoint changed"]
    line("one endpoint changed, slice to kernel", f"{changed * 1000:.1f} ms")
    for what, floor in (("nothing", "empty restore"), ("one rule", "one-rule restore")):
        line(
            f"  as a multiple of a commit of {what}",
            f"{changed / results[floor]:.1f}",
            "at most 3",
            holds=changed <= 3 * results[floor],
        )
    line("  bytes written", f"{results['bytes written']:.0f}")
    legacy = measured("kernel", str(file), "legacy", "all", namespace=True)
    print(f"\niptables-legacy, {size:,} Services x {worlds.ENDPOINTS}")
    line("first apply", f"{legacy['first apply']:.2f} s")
    line("an empty iptables-legacy-restore", f"{legacy['empty restore'] * 1000:.1f} ms")
    line("one endpoint changed, slice to kernel", f"{legacy['one endpoint changed'] * 1000:.1f} ms")
    return results


def agents(size: int) -> None:
    """Print what the agent costs: its start, a change, nothing at all, and its memory."""
    results = measured("agent", str(size), namespace=True)
    large = size >= 10_000
    print(f"\nrulegen run, {size:,} Services x {worlds.ENDPOINTS}, iptables-nft, minSyncPeriod 0")
    start, again = results["start on an empty kernel"], results["start where nothing changed"]
    line("start until all is written, empty kernel", f"{start:.2f} s", "at most 15 s at 10,000", holds=start <= 15)
    line("  processor time of that", f"{results['start, processor']:.2f} s")
    line("start where nothing changed", f"{again:.2f} s", "at most 5 s at 10,000", holds=again <= 5)
    line("  processor time of that", f"{results['start again, processor']:.2f} s")
    commits = results["commits where nothing changed"]
    line("  commits of that", f"{commits:.0f}", "0", holds=commits == 0)
    for what, promise in (("median", 60), ("p99", 250)):
        took = results[f"change, {what}"] * 1000
        holds = took <= promise if large else None
        line(f"one endpoint changed, event to kernel, {what}", f"{took:.1f} ms", f"at most {promise} ms", holds=holds)
    line("  the least commit there is", f"{results['least commit'] * 1000:.1f} ms")
    line("  of that in the kernel", f"{results['least commit, kernel'] * 1000:.1f} ms")
    line("  processor time of a change, all in all", f"{results['change, processor'] * 1000:.1f} ms")
    line("  of that the agent's own", f"{results['change, own'] * 1000:.1f} ms")
    for what in ("memory", "memory after changes", "memory where nothing changed"):
        line(what, f"{results[what]:.0f} MB", "at most 230 MB", holds=results[what] <= 230)
    line("most memory, at the start", f"{results['peak']:.0f}, {results['peak where nothing changed']:.0f} MB")
    line("processor while nothing happens", f"{results['idle'] * 100:.2f} %", "near 0", holds=results["idle"] < 0.01)


def nftables(size: int) -> None:
    """Print what nftables mode costs in both layouts; a first load of the other one takes long."""
    results = measured("nftables", str(size), namespace=True)
    large, huge = size >= 10_000, size >= 100_000
    print(f"\nnftables mode, layout flat, {size:,} Services x {worlds.ENDPOINTS}")
    for what, title, most in (
        ("kernel", "first load, kernel part", 2.0 if huge else 0.15),
        ("whole", "first load, from objects to the kernel", 18.0 if huge else 1.6),
    ):
        line(title, f"{results[what]:.2f} s", f"at most {most} s", holds=results[what] <= most if large else None)
    line("  processor time", f"{results['whole, processor time']:.2f} s")
    line("  transactions, bytes", f"{results['transactions']:.0f}, {results['bytes']:.0f}")
    for what, title in (("replaced", "one endpoint replaced"), ("fewer or more", "one endpoint less or more")):
        for figure, most in (("median", 5.0), ("p99", 15.0), ("netlink part", 0.2)):
            took = results[f"{what}, {figure}"] * 1000
            line(f"{title}, {figure}", f"{took:.3f} ms", f"at most {most} ms", holds=took <= most)
        line("  processor time, median", f"{results[f'{what}, processor time'] * 1000:.3f} ms")
        for what_else, least in (("processes", 0), ("transactions", 1)):
            count = results[f"{what}, {what_else}"]
            line(f"  {what_else}", f"{count:.0f}", f"{least}", holds=count == least)
    line("read back over netlink", f"{results['read back']:.2f} s")
    agent = measured("agent", str(size), str(NFT_CHANGES), "5", "3", "--mode", "nftables", namespace=True)
    line("rulegen run: start until all is written", f"{agent['start on an empty kernel']:.2f} s")
    for figure in ("median", "p99"):
        line(f"  one endpoint less, API to kernel, {figure}", f"{agent[f'change, {figure}'] * 1000:.1f} ms")
    memory = agent["memory after changes"]
    line("  memory", f"{memory:.0f} MB", "at most 1,400 MB at 100,000", holds=memory <= 1400)
    if size == 10_000:
        took = measured("nftables", str(size), "kube-proxy", "20", namespace=True)["fewer or more, median"]
        line("layout kube-proxy: one endpoint less or more", f"{took:.3f} s", "at most 0.25 s", holds=took <= 0.25)


def pods(size: int) -> None:
    """Print what endpoints from Pods cost beside endpoints from slices."""
    both = {
        source: measured("pods", source, str(size), str(CHANGES), "3", namespace=True) for source in ("slices", "pods")
    }
    print(f"\nrulegen run --endpoints, {size:,} Pods of {size // OF_SERVICE:,} Services, iptables-nft")
    for source, results in both.items():
        took = results["change, median"] * 1000
        line(f"{source}: start until all is written", f"{results['start']:.2f} s")
        line("  one change, event to kernel, median", f"{took:.1f} ms", "at most 60 ms", holds=took <= 60)
        line("  p99", f"{results['change, p99'] * 1000:.1f} ms")
        line("  memory, after changes, most", ", ".join(f"{results[what]:.0f}" for what in MEMORY) + " MB")
    ratio = both["pods"]["memory after changes"] / both["slices"]["memory after changes"]
    line("memory with Pods as a multiple", f"{ratio:.2f}", "at most 1.3", holds=ratio <= 1.3)


def measured_inside(size: int) -> dict[str, float]:
    """Run the measurement of IPVS mode in a user-mode Linux of its own.

    Raises:
        Unavailable: There can be none.
    """
    argv = [sys.executable, "-m", "integration.bench.ipvs", str(size)]
    machine = Machine(argv, memory_mb=2048, lifetime_s=INSIDE_S)
    try:
        line = machine.listen(INSIDE_S + 30)
        if not line:
            raise SystemExit(f"{' '.join(argv)}: {machine.console()}")
        results: dict[str, float] = json.loads(line)
    finally:
        machine.close()
    return results


def servers(size: int) -> dict[str, float]:
    """Print what IPVS mode costs, beside the tools' own formats for the same state."""
    results = measured_inside(size)
    print(f"\nIPVS, {size:,} Services x {worlds.ENDPOINTS}, in a user-mode Linux: read ratios")
    tools = results["ipvsadm -R"] + results["ipset restore"] + results["ip -batch"]
    line("first sync", f"{results['first sync']:.2f} s")
    line("  messages, processes", f"{results['messages']:.0f}, {results['processes']:.0f}")
    parts = ", ".join(f"{results[tool]:.2f}" for tool in ("ipvsadm -R", "ipset restore", "ip -batch"))
    line("ipvsadm -R, ipset restore, ip -batch", f"{parts} s")
    line("  first sync as a multiple of their sum", f"{results['first sync'] / tools:.1f}")
    line("read back", f"{results['read back']:.2f} s")
    line("one endpoint changed, slice to kernel", f"{results['one endpoint changed'] * 1000:.1f} ms")
    line("  messages, processes", f"{results['its messages']:.0f}, {results['its processes']:.0f}")
    return results


def ingresses(size: int, kind: str) -> None:
    """Print what Ingresses cost, from objects to new workers that answer."""
    results = measured("ingress", str(size), kind, namespace=True, processes=True)
    large = size >= 5_000 and kind == "plain"
    print(f"\n{size:,} Ingresses x 3 paths, {'with TLS' if kind == 'tls' else 'without TLS'}")
    made = sum(results[stage] for stage in ("resolve", "compile", "render"))
    line("resolve, compile and render", f"{made:.2f} s", "at most 2 s at 5,000", holds=made <= 2 if large else None)
    line("check by the own parser", f"{results['check']:.2f} s")
    megabytes = results["bytes"] / 1e6
    line("rendered", f"{megabytes:.2f} MB", "at most 3 MB at 5,000", holds=megabytes <= 3 if large else None)
    line("written to disk", f"{results['write']:.2f} s")
    line("nginx -t in the sandbox", f"{results['try']:.2f} s")
    line("first start, until workers answer", f"{results['serve']:.2f} s")
    changed = sum(results[f"one host: {stage}"] for stage in ("resolve", "compile", "render", "check"))
    line("one host changed: from objects to text", f"{changed:.2f} s")
    rendered = results["one host: rendered"]
    line("  files that are compiled and rendered anew", f"{rendered:.0f}", "1", holds=rendered == 1)
    line("  compiled and rendered in", f"{results['one host: compile'] + results['one host: render']:.3f} s")
    # The main file holds the digest that new workers answer with, so it changes each time.
    files = results["one host: files"] - 1
    line("  files that change, beside nginx.conf", f"{files:.0f}", "1", holds=files == 1)
    line("  bytes of all of them", f"{results['one host: bytes']:.0f}")
    line("  written to disk", f"{results['one host: write']:.2f} s")
    line("  nginx -t in the sandbox", f"{results['one host: try']:.2f} s")
    line("  reload, until new workers answer", f"{results['one host: serve']:.2f} s")


def events(size: int) -> None:
    """Print what changes cost with each ingress engine, from the event to the answer for a client."""
    all_results = {
        name: measured("engines.events", name, str(size), namespace=True, processes=True)
        for name in ("nginx", "haproxy")
    }
    print(f"\nrulegen run --ingress, {size:,} Ingresses x 3 paths, event to answer; read medians")
    for name, results in all_results.items():
        line(f"{name}: start until a host is served", f"{results['start']:.2f} s")
        for what in ("endpoint", "host", "Service port"):
            times = ", ".join(f"{results[f'{what}, {figure}'] * 1000:.0f}" for figure in ("median", "slowest"))
            line(f"  {what}, median and slowest", f"{times} ms")
        parts = (f"{results[part]:.0f}, {results[f'{part} after changes']:.0f}" for part in ("agent", "engine"))
        line("  agent, after changes; all of the engine", f"{'; '.join(parts)} MB")
    results = all_results["haproxy"]
    took, most = results["taken, median"] * 1000, 10
    line("haproxy: event to the answer of its socket", f"{took:.1f} ms", f"at most {most} ms", holds=took <= most)
    if size <= 50:
        took = results["Service port, median"] * 1000
        line("haproxy: a new Service port", f"{took:.0f} ms", "at most 50 ms", holds=took <= 50)


def proxied(size: int) -> None:
    """Print what changes of Services cost in userspace mode, from the event to the answer for a client."""
    results = measured("engines.services", str(size), namespace=True, processes=True)
    print(f"\nrulegen run --mode userspace, {size:,} Services x {worlds.ENDPOINTS}, event to answer; read medians")
    line("start until all is served", f"{results['start']:.2f} s")
    for what in ("endpoint", "new Service"):
        times = ", ".join(f"{results[f'{what}, {figure}'] * 1000:.0f}" for figure in ("median", "slowest"))
        took = results[f"{what}, median"]
        line(f"{what}, median and slowest", f"{times} ms", "at most 20 ms", holds=took <= 0.02)
    line("agent after changes", f"{results['agent after changes']:.0f} MB")
    memory = results["haproxy after changes"] * 2**20 / 1e6
    line("HAProxy after changes", f"{memory:.0f} MB", "at most 250 MB", holds=memory <= 250)


def main(sizes: tuple[int, ...]) -> None:
    """Measure all sizes and compare the smallest with the largest."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XTABLES_LOCKFILE"] = f"{folder}/xtables.lock"  # the real one is not ours to hold
        bytes_written = {}
        for size in sizes:
            as_yaml, as_json = worlds.write(Path(folder), size)
            plans(as_yaml, size)
            plans(as_json, size)
            bytes_written[size] = writes(as_json, size)["bytes written"]
            agents(size)
            nftables(size)
        pods(PODS if sizes == SIZES else sizes[-1] * OF_SERVICE)
    first, last = bytes_written[sizes[0]], bytes_written[sizes[-1]]
    print("\nbytes written for one endpoint changed")
    grown = f"{first:.0f} to {last:.0f}"
    line(f"{sizes[0]:,} to {sizes[-1]:,} Services", grown, "does not grow", holds=last <= first * 1.1)
    counted = []
    try:
        counted = [servers(size) for size in (SERVERS if sizes == SIZES else sizes)]
    except Unavailable as reason:
        print(f"\nIPVS is not measured: {reason}")
    for what in ("its messages", "its processes") if counted else ():
        reported = [entry[what] for entry in counted]
        line(
            f"{what}, at all sizes",
            ", ".join(f"{n:.0f}" for n in reported),
            "does not grow",
            holds=len(set(reported)) == 1,
        )
    for kind in ("plain", "tls"):
        for size in INGRESSES if sizes == SIZES else sizes:
            ingresses(size, kind)
    for size in EVENTS if sizes == SIZES else sizes:
        events(size)
    for size in PROXIED if sizes == SIZES else sizes:
        proxied(size)


if __name__ == "__main__":
    main(tuple(int(size) for size in sys.argv[1:]) or SIZES)
