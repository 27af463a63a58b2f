"""What Ingresses cost: N of them with a host and three paths each. A process; prints seconds and sizes by name."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from integration.bench import worlds
from integration.ingress import certificates
from integration.ingress.objects import secret
from rulegen.backends.nginx import configuration as nginx
from rulegen.compiler.ingress.nginx import NginxSite
from rulegen.host.commands.runner import run
from rulegen.host.nginx.facts import gather_nginx
from rulegen.host.nginx.service import NginxService
from rulegen.host.nginx.templates import read_templates
from rulegen.host.proxy.disk import default_certificate
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.configuration import Configuration
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.ir import SecretFile
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.resolve import resolve_ingress
from rulegen.net import Family

T = TypeVar("T")

PATHS = ("/", "/api", "/static")
HOSTS = ("*.bench.example.com",)
CERTIFICATES = 200
"""Secrets that the hosts share, as those of one wildcard do."""


def objects(ingresses: int, *, tls: bool) -> Iterator[dict[str, Any]]:
    """Yield the objects of a world: a Service and an Ingress for each host, and the class."""
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "rulegen"},
        "spec": {"controller": "rulegen.io/ingress"},
    }
    for number in range(CERTIFICATES if tls else 0):
        made = {"tls.crt": certificates.certificate(f"cert-{number}", HOSTS), "tls.key": certificates.key_pem()}
        yield secret(f"cert-{number}", "kubernetes.io/tls", made, "bench")
    for number in range(ingresses):
        yield worlds.service(number)
        yield worlds.endpoint_slice(number)
        yield ingress(number, tls=tls)


def ingress(number: int, *, tls: bool, paths: tuple[str, ...] = PATHS) -> dict[str, Any]:
    """Return one Ingress, as an API server prints it."""
    host = f"app-{number}.bench.example.com"
    backend = {"service": {"name": f"svc-{number}", "port": {"number": 80}}}
    spec: dict[str, Any] = {
        "ingressClassName": "rulegen",
        "rules": [
            {"host": host, "http": {"paths": [{"path": p, "pathType": "Prefix", "backend": backend} for p in paths]}}
        ],
    }
    if tls:
        spec["tls"] = [{"hosts": [host], "secretName": f"cert-{number % CERTIFICATES}"}]
    metadata = {"name": f"app-{number}", "namespace": "bench", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def read(documents: list[dict[str, Any]]) -> ClusterSnapshot:
    """Return the World of documents."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    return read_world([Source("bench.json", text.encode())])


class Bench:
    """What is measured, by name: seconds, bytes and counts."""

    def __init__(self, folder: Path) -> None:
        self.figures: dict[str, float] = {}
        self.templates = read_templates()
        facts = gather_nginx(run)
        self.options = IngressOptions(
            host=HttpHost(user=f"{facts.user} {facts.group}" if facts.user else ""),
            made_up_certificate=SecretFile(content=default_certificate.make()),
            families=(Family.IPV4,),
        )
        self.service = NginxService(folder, run)

    def timed(self, what: str, work: Callable[[], T]) -> T:
        """Do something and note how long it takes."""
        gc.collect()
        start = time.perf_counter()
        result = work()
        self.figures[what] = time.perf_counter() - start
        return result

    def configured(self, prefix: str, world: ClusterSnapshot, before: NginxSite | None = None) -> NginxSite:
        """Return the site of a World, as a command or, with the one before, as the agent makes it; stages timed."""
        model = self.timed(f"{prefix}resolve", lambda: resolve_ingress(world, self.options))
        known = before.still_right(model.defaults) if before else {}
        fragments = self.timed(f"{prefix}compile", lambda: nginx.compile_site(model, known))
        texts = before.configuration.files if before else {}
        kept = {fragment.path: texts[fragment.path] for fragment in fragments if known.get(fragment.path) is fragment}
        made = self.timed(
            f"{prefix}render",
            lambda: nginx.render(model, fragments, self.templates, served=True, written=kept),
        )
        self.timed(
            f"{prefix}check",
            lambda: nginx.check(made, model, fragments, self.templates, unchanged=kept, served=True),
        )
        if before:
            changed = [path for path, text in made.files.items() if texts.get(path) != text]
            self.figures[f"{prefix}rendered"] = len(fragments) - len(kept)
            self.figures[f"{prefix}files"] = len(changed)
            self.figures[f"{prefix}bytes"] = sum(len(made.files[path]) for path in changed)
        return NginxSite(model=model, fragments=fragments, configuration=made)

    def served(self, prefix: str, configuration: Configuration) -> None:
        """Have nginx try a configuration and serve it."""
        self.timed(f"{prefix}write", lambda: self._write(configuration))
        verdict = self.timed(f"{prefix}try", lambda: self.service.test(configuration))
        if verdict.message:
            raise SystemExit(f"nginx refuses the bench's configuration: {verdict.message}")
        self.timed(f"{prefix}serve", lambda: self.service.apply(configuration, tested=True))

    def _write(self, configuration: Configuration) -> None:
        with self.service.releases.locked():
            self.service.releases.write(configuration)


def main(ingresses: int, *, tls: bool) -> dict[str, float]:
    """Return seconds, bytes and counts by name."""
    gc.disable()  # as the command does
    documents = list(objects(ingresses, tls=tls))
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # nginx's workers are another user
        bench = Bench(Path(name) / "nginx")
        world = bench.timed("read", lambda: read(documents))
        first = bench.configured("", world)
        bench.figures["bytes"] = sum(len(text) for text in first.configuration.files.values())
        try:
            bench.served("", first.configuration)
            documents[-1] = ingress(ingresses - 1, tls=tls, paths=(*PATHS, "/new"))
            changed = bench.configured("one host: ", read(documents), first)
            bench.served("one host: ", changed.configuration)
        finally:
            bench.service.drain(5)
    return bench.figures


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1]), tls=sys.argv[2] == "tls"), sys.stdout)
