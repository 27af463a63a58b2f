"""How much memory the agent and all that it starts take, for the limits in deploy/.

Run in a network namespace of its own:

    unshare --net python -m integration.bench.memory services 10000
    unshare --net python -m integration.bench.memory ingresses 300
    unshare --net python -m integration.bench.memory ingresses 10 8 10000    # beside 10,000 Services of no Ingress

Memory is the proportional share (Pss, proc_pid_smaps(5)) of all processes of this namespace but this one, so that pages
which nginx's processes share count once, and beside it what lies in the folder for temporary files, which the manifests
keep in memory. It is looked at ten times a second. The time that things take is not measured here.

The kernel counts rules to the container that writes them (since Linux 5.18). What they take is what the whole
machine has more when they are gone, so nothing else should be at work on it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from integration import manifests
from integration.bench import ingress, worlds
from integration.bench.kernel import OUTSIDE
from tests.servers.fakeapi import FakeApi

COLLECTIONS = {
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "Node": "nodes",
    "Ingress": "ingresses",
    "IngressClass": "ingressclasses",
    "Secret": "secrets",
}
SETTLED_S = 8.0
CHANGES = 20
WITHIN_S = 900.0


class Memory:
    """What all processes of this namespace take, in MB, seen ten times a second."""

    def __init__(self, temporary: Path) -> None:
        self._temporary, self._ours = temporary, Path("/proc/self/ns/net").readlink()
        self._peak, self._ends = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()

    def peak(self) -> float:
        """Return the most since this was last asked."""
        results, self._peak = self._peak, 0.0
        return results

    def now(self) -> dict[str, list[float]]:
        """Return the share of each process, by the name of its program; the agent's is `rulegen`."""
        collected: dict[str, list[float]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if (entry / "ns/net").readlink() == self._ours:
                        share = re.search(r"^Pss: +(\d+)", (entry / "smaps_rollup").read_text(), re.MULTILINE)
                        words = (entry / "cmdline").read_bytes()
                        name = "rulegen" if b"rulegen\0run" in words else (entry / "comm").read_text().strip()
                        name = "nginx master" if words.startswith(b"nginx: master") else name
                        collected.setdefault(name, []).append(int(share[1]) / 1024 if share else 0.0)
        return collected

    def of_one_worker(self) -> float:
        """Return what a further worker of nginx would take: the pages that one has for itself."""
        results = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    ours = (entry / "ns/net").readlink() == self._ours
                    if ours and (entry / "cmdline").read_bytes().startswith(b"nginx: worker"):
                        private = re.findall(
                            r"^Private_\w+: +(\d+)", (entry / "smaps_rollup").read_text(), re.MULTILINE
                        )
                        results.append(sum(map(int, private)) / 1024)
        return max(results, default=0.0)

    def _look(self) -> None:
        while not self._ends.wait(0.1):
            files = sum(file.stat().st_size for file in self._temporary.rglob("*") if file.is_file()) / 2**20
            self._peak = max(self._peak, files + sum(map(sum, self.now().values())))


def of_the_kernel() -> dict[str, float]:
    """Return what the kernel's own objects take on this machine, in MB: those of all, and those for each processor."""
    said = Path("/proc/meminfo").read_text()
    sizes = {name: re.search(rf"^{name}: +(\d+) kB", said, re.MULTILINE) for name in ("SUnreclaim", "Percpu")}
    return {name: int(size[1]) / 1024 for name, size in sizes.items() if size}


def is_well(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
            reply = json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return bool(reply["healthy"]) and reply["appliedGeneration"] == reply["desiredGeneration"]


def wait(log: Path, process: subprocess.Popen[bytes], settled_s: float) -> None:
    """Return when all is written, and was for a while."""
    until = time.monotonic() + WITHIN_S
    well_since = 0.0
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"the agent ended: {log.read_text()}")
        if not is_well(10256):
            well_since = 0.0
        elif not well_since:
            well_since = time.monotonic()
        elif time.monotonic() - well_since > settled_s:
            return
        time.sleep(0.3)
    raise SystemExit(f"not well: {log.read_text()[-2000:]}")


def until_another(current: Path, served: Path, settled_s: float) -> None:
    """Return when nginx has had another configuration for a while."""
    until, since, last = time.monotonic() + WITHIN_S, 0.0, served
    while time.monotonic() < until:
        before, last = last, current.readlink()
        if before != last:
            since = time.monotonic()
        elif since and time.monotonic() - since > 2 * settled_s:
            return
        time.sleep(0.3)
    raise SystemExit("the changes are not served")


def change(api: FakeApi, kind: str, size: int, current: Path, settled_s: float) -> None:
    """Change some objects one by one; return when nginx serves the last of them."""
    served = current.readlink() if kind == "ingresses" else current
    for number in range(min(CHANGES, size)):
        if kind == "ingresses":
            api.put("ingresses", ingress.ingress(number, tls=True, paths=("/", "/changed")))
        else:
            api.put("endpointslices", worlds.endpoint_slice(number, 2))
        time.sleep(0.3)
    if kind == "ingresses":
        until_another(current, served, settled_s)


def main(kind: str, size: int, settled_s: float = SETTLED_S, beside: float = 0) -> dict[str, object]:
    """Measure a start, a change of some objects one by one, and a SIGHUP, each after a time without a change.

    With Ingresses, so many Services that no Ingress refers to can be beside them.
    """
    if os.environ.get(OUTSIDE) == str(Path("/proc/self/ns/net").readlink()):
        raise SystemExit("this fills the namespace that it runs in")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name, FakeApi() as api:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user
        (folder / "tmp").mkdir()
        api.put("nodes", *(document for document in worlds.objects(0)))
        hosts = ingress.objects(size, tls=True) if kind == "ingresses" else ()
        objects = (*hosts, *worlds.objects(int(beside) if hosts else size))
        for element in objects:
            api.put(COLLECTIONS[element["kind"]], element)
        config, log = folder / "config.json", folder / "log"
        config.write_text(manifests.configuration(iptables={"minSyncPeriod": "1s", "syncPeriod": "30s"}))
        given = ["--kubeconfig", api.kubeconfig(folder), "--config", str(config), "--node", "node1", "--variant", "nft"]
        if kind == "ingresses":
            given += ["--ingress", "--no-services", "--nginx-dir", str(folder / "nginx")]
        memory = Memory(folder / "tmp")
        collected: dict[str, object] = {}

        def note(what: str) -> None:
            collected[what] = {
                "peak of all": round(memory.peak()),
                "one worker": round(memory.of_one_worker()),
                **{entry: [round(share) for share in shares] for entry, shares in memory.now().items()},
            }
            print(what, collected[what], file=sys.stderr, flush=True)

        with log.open("w") as file:
            argv = [sys.executable, "-m", "rulegen", "run", *given]
            process = subprocess.Popen(argv, stderr=file, env={**os.environ, "TMPDIR": str(folder / "tmp")})
        try:
            wait(log, process, settled_s)
            note("after the start")
            change(api, kind, size, folder / "nginx/current", settled_s)
            wait(log, process, settled_s)
            note("after changes")
            process.send_signal(signal.SIGHUP)
            time.sleep(2)
            wait(log, process, settled_s)
            note("after SIGHUP")
        finally:
            memory.end()
            process.terminate()
            process.wait(WITHIN_S)
        if kind == "services":
            with_rules = of_the_kernel()
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            time.sleep(settled_s / 2)
            without = of_the_kernel()
            collected["rules in the kernel"] = {name: round(size - without[name]) for name, size in with_rules.items()}
            print("rules in the kernel", collected["rules in the kernel"], file=sys.stderr)
        return collected


if __name__ == "__main__":
    json.dump(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])), sys.stdout)
