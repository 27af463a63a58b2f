"""The ingress engine HAProxy without a process: compiles Ingresses, and writes the files for HAProxy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.backends.haproxy.names import CONFIG, USERS
from rulegen.compiler.ingress.haproxy import HaproxySite, compile_haproxy
from rulegen.host.files.output import write_site
from rulegen.host.files.self_signed import make
from rulegen.languages.haproxy.text import format_map, format_sections
from rulegen.plan.haproxy import LANGUAGE, plan_new
from rulegen.plan.show import SCHEMA_VERSION

if TYPE_CHECKING:
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.plan.ingress import IngressPlan

FOLDERS: Final = ("maps",)
_NO_USER: Final = (("::", "!"),)
"""A map of passwords without users: no client can send this name."""


@dataclass(slots=True)
class HaproxyCompiler:
    """Compiles without an HAProxy on this host; see `IngressCompiler`."""

    options: IngressOptions
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """HAProxy."""
        return LANGUAGE

    def compile(self, world: ClusterSnapshot) -> HaproxySite:
        """Return a configuration that HAProxy 2.6 takes."""
        return compile_haproxy(world, self.options)

    def plan_all(self, site: HaproxySite) -> IngressPlan:
        """Return the plan for a host on which HAProxy serves nothing."""
        return replace(plan_new(site.configuration.files, site.configuration.secrets), runs=False)

    def export(self, site: HaproxySite, folder: str, *, with_secrets: bool) -> list[str]:
        """Write a configuration for users to read, with the origin of each location."""
        secrets = {path: secret.content for path, secret in site.configuration.secrets.items()}
        if not with_secrets:
            secrets = {path: self._placeholder(path, content, site) for path, content in secrets.items()}
        document = {
            "schemaVersion": SCHEMA_VERSION,
            "kind": "Provenance",
            "locations": site.provenance,
            "reasons": [str(reason) for reason in site.model.reasons],
        }
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        files = {**site.configuration.files, "provenance.json": f"{text}\n"}
        write_site(folder, files, secrets, inner=FOLDERS)
        hint = "" if with_secrets else "; certificates are placeholders (--with-secrets writes the real ones)"
        count = len(site.configuration.files)
        return [f"{folder}: {count} files, for haproxy -c -C {folder} -f {CONFIG} -f {USERS}{hint}"]

    def _placeholder(self, path: str, content: bytes, site: HaproxySite) -> bytes:
        made_up = self.options.made_up_certificate
        if path == USERS:
            empty = [section._replace(statements=()) for section in site.values.users]
            return format_sections(empty).encode()
        match path.rpartition(".")[2]:
            case "pem":
                return made_up.content if made_up is not None else make()
            case "passwords":
                return format_map(_NO_USER).encode()
        return content  # lists of revoked certificates are public
