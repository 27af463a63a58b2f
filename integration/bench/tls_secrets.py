"""What it costs to serve Ingresses that each have a TLS Secret of their own; run by hand.

    unshare --net --mount --pid --fork --mount-proc python -m integration.bench.tls_secrets 5000 100 all

serves 5,000 Ingresses in 100 namespaces and then changes 1,000 of the Secrets. The last word says what the role allows:
`all` Secrets, those of each `namespace`, or single `names`. The API server is that of the tests, over TLS, in this
process; threads, connections and memory are those of the agent alone.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from integration.bench import worlds
from integration.bench.agent import PAGE_MB, TICKS
from integration.ingress import certificates
from integration.ingress.objects import secret
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi

COLLECTIONS = {
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "Ingress": "ingresses",
    "IngressClass": "ingressclasses",
    "Secret": "secrets",
}
CHANGES = 1000
BATCH = 50
"""Secrets that are changed at a time."""
WITHIN_S = 600.0
SETTLED_S = 5.0


def namespace_of(number: int, namespaces: int) -> str:
    return f"team-{number % namespaces:03}"


def host_of(number: int) -> str:
    return f"app-{number}.bench.example.com"


def tls_secret(number: int, namespaces: int) -> dict[str, Any]:
    """Return a Secret with a certificate for one host; each call makes another certificate."""
    made = {"tls.crt": certificates.certificate(host_of(number)), "tls.key": certificates.key_pem()}
    return secret(f"tls-{number}", "kubernetes.io/tls", made, namespace_of(number, namespaces))


def objects(ingresses: int, namespaces: int) -> Iterator[dict[str, Any]]:
    """Yield the class, a Service for each namespace, and for each Ingress its Secret."""
    yield {"kind": "IngressClass", "metadata": {"name": "rulegen"}, "spec": {"controller": "rulegen.io/ingress"}}
    for number in range(namespaces):
        for each in (worlds.service(number), worlds.endpoint_slice(number)):
            yield {**each, "metadata": {**each["metadata"], "namespace": namespace_of(number, namespaces)}}
    for number in range(ingresses):
        backend = {"service": {"name": f"svc-{number % namespaces}", "port": {"number": 80}}}
        path = {"path": "/", "pathType": "Prefix", "backend": backend}
        yield {
            "kind": "Ingress",
            "metadata": {
                "name": f"app-{number}",
                "namespace": namespace_of(number, namespaces),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "uid": f"uid-{number}",
            },
            "spec": {
                "ingressClassName": "rulegen",
                "rules": [{"host": host_of(number), "http": {"paths": [path]}}],
                "tls": [{"hosts": [host_of(number)], "secretName": f"tls-{number}"}],
            },
        }
        yield tls_secret(number, namespaces)


class Process:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self.most_threads = self.most_connections = self.most_descriptors = 0

    def look(self) -> None:
        """Keep the most that there were at any time."""
        self.most_threads = max(self.most_threads, len(list((self._folder / "task").iterdir())))
        links = []
        for entry in (self._folder / "fd").iterdir():
            with suppress(OSError):
                links.append(str(entry.readlink()))
        self.most_descriptors = max(self.most_descriptors, len(links))
        self.most_connections = max(self.most_connections, len(established(links)))

    def figures(self) -> dict[str, float]:
        """Return what it takes now, and the most that was seen."""
        status = (self._folder / "status").read_text()
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return {
            "most threads": self.most_threads,
            "most connections": self.most_connections,
            "most descriptors": self.most_descriptors,
            "MB": round(int((self._folder / "statm").read_text().split()[1]) * PAGE_MB),
            "most MB": round(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024),
            "own processor s": round(sum(int(each) for each in fields[11:13]) / TICKS, 1),
        }


def established(links: list[str]) -> set[str]:
    """Return those of a process' sockets that are connections over TCP."""
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "01"}
    return {inode for inode in re.findall(r"socket:\[(\d+)\]", " ".join(links)) if inode in inodes}


def serial_of(host: str) -> str:
    """Return the certificate that nginx shows for a host; empty where there is no answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", 443), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=host) as tls,
        ):
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")
    except OSError:
        return ""


def until_shown(process: Process, numbers: list[int], expected: dict[int, bytes]) -> float:
    """Wait until nginx shows these hosts' certificates, and return how long that took, in seconds."""
    began = time.monotonic()
    left = list(numbers)
    while left:
        if time.monotonic() - began > WITHIN_S:
            raise SystemExit(f"{len(left)} hosts are not served, such as {host_of(left[0])}")
        process.look()
        shown = serial_of(host_of(left[-1]))
        if shown and certificates.der(shown.encode()) == certificates.der(expected[left[-1]]):
            left.pop()
        else:
            time.sleep(0.1)
    return time.monotonic() - began


def allowed(role: str) -> dict[str, Any]:
    """Return what the API server lets the agent do, as attributes of it."""

    def allows_at(path: str, query: dict[str, str]) -> bool:
        if not re.search(r"/(secrets|configmaps)(/|$)", path) or role == "all":
            return True
        if role == "namespace":
            return "/namespaces/" in path
        return "/namespaces/" in path and ("fieldSelector" in query or path.rpartition("/")[2] != "secrets")

    return {"allows_at": allows_at} if role != "all" else {}


def main(ingresses: int, namespaces: int, role: str) -> dict[str, object]:
    """Measure the start and the changes."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user
        own = make_certificate(folder)
        with FakeApi(certificate=own, bookmark_every=60.0, is_prompt=True, **allowed(role)) as api:
            expected: dict[int, bytes] = {}
            api.put("nodes", *worlds.objects(0))
            for each in objects(ingresses, namespaces):
                api.put(COLLECTIONS[each["kind"]], each)
            for number in range(ingresses):
                kept = (
                    api.kept("secrets")[namespace_of(number, namespaces), f"tls-{number}"] if number % 97 == 0 else None
                )
                if kept:
                    expected[number] = pem_of(kept)
            kubeconfig = api.kubeconfig(folder, **{"certificate-authority": str(own[0])})
            given = ["--kubeconfig", kubeconfig, "--node", "node1", "--ingress", "--no-services"]
            given += ["--nginx-dir", str(folder / "nginx")]
            log = folder / "log"
            with log.open("w") as file:
                running = subprocess.Popen([sys.executable, "-m", "rulegen", "run", *given], stderr=file)
            process = Process(running.pid)
            figures: dict[str, object] = {}
            try:
                figures["served after s"] = round(until_shown(process, list(expected), expected), 1)
                settle(process, SETTLED_S)
                figures["after the start"] = process.figures()
                began = time.monotonic()
                for start in range(0, CHANGES, BATCH):
                    for number in range(start, start + BATCH):
                        changed = tls_secret(number % ingresses, namespaces)
                        api.put("secrets", changed)
                        expected[number % ingresses] = pem_of(changed)
                    settle(process, 1.0)
                last = list(range(min(CHANGES, ingresses)))[-BATCH:]
                until_shown(process, last, expected)
                figures["changes served after s"] = round(time.monotonic() - began, 1)
                settle(process, SETTLED_S)
                figures["after changes"] = process.figures()
                figures["requests"] = dict(Counter(sort_of(path, query) for path, query in [*api.requests]))
            finally:
                running.terminate()
                running.wait(60)
                print(log.read_text()[-1500:], file=sys.stderr)
        return figures


def sort_of(path: str, query: dict[str, str]) -> str:
    """Return what a request is for, in a few words."""
    noun = re.sub(r".*/namespaces/[^/]+/", "", path).partition("/")[0] if "/namespaces/" in path else path
    where = "single " if "fieldSelector" in query else "namespace's " if "/namespaces/" in path else "all "
    return f"{'watch' if 'watch' in query else 'read'} {where}{noun.rpartition('/')[2]}"


def pem_of(each: dict[str, Any]) -> bytes:
    return base64.b64decode(each["data"]["tls.crt"])


def settle(process: Process, seconds: float) -> None:
    """Wait, and look."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        process.look()
        time.sleep(0.1)


if __name__ == "__main__":
    if os.environ.get("RULEGEN_BENCH_OUTSIDE") == str(Path("/proc/self/ns/net").readlink()):
        raise SystemExit("this fills the namespace that it runs in")
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]), indent=2))
