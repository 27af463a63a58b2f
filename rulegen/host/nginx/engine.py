"""The ingress engine nginx: compiles Ingresses, tests the result, leaves out rejected ones, and serves the rest."""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.compiler.ingress.candidates import Candidates, NotCompiledError
from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress, suspects
from rulegen.errors import RulegenError, internal_error
from rulegen.host.files.output import write_site
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.engine import ProxyEngine
from rulegen.host.proxy.naming import naming_of
from rulegen.languages.nginx.check import MismatchError
from rulegen.languages.nginx.text import UnquotableError
from rulegen.model.ingress.routing.selection import selected
from rulegen.model.ingress.upstreams.reads import all_reads
from rulegen.plan.nginx import LANGUAGE, plan_site
from rulegen.plan.show import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.compiler.ingress.engine import DeployOutcome
    from rulegen.host.nginx.service import NginxService
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.plan.ingress import IngressPlan

FOLDERS: Final = ("hosts", "upstreams")
"""The folders of a configuration, beside that for secrets."""
_NO_PASSWORD: Final = b"nobody:!\n"
"""A password file without users."""


@contextmanager
def _compiling() -> Iterator[None]:
    """Raise NotCompiledError for what the objects may be the reason of; errors of options and of the host pass."""
    try:
        yield
    except (MismatchError, UnquotableError) as error:
        raise NotCompiledError(error.message) from error
    except (RulegenError, MemoryError):
        raise
    except Exception as error:
        raise NotCompiledError(internal_error(error), is_internal=True) from error


@dataclass(slots=True)
class NginxCompiler:
    """Compiles without an nginx on this host; see `IngressCompiler`."""

    templates: Templates
    options: IngressOptions
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Nginx."""
        return LANGUAGE

    def compile(self, world: ClusterSnapshot) -> NginxSite:
        """Return a configuration that plain nginx takes, without Ingresses from which none can be compiled."""

        def compile_site(options: IngressOptions, before: NginxSite | None) -> NginxSite:
            with _compiling():
                return compile_ingress(world, options, self.templates, served=False, before=before)

        candidates = Candidates(LANGUAGE, compile_site, self.options)
        return candidates.settled(selected(world, self.options), lambda _: None, suspects)

    def plan_all(self, site: NginxSite) -> IngressPlan:
        """Return the plan for a host on which nginx serves nothing."""
        return msgspec.structs.replace(plan_site(None, site.configuration, site.names), runs=False)

    def export(self, site: NginxSite, folder: str, *, with_secrets: bool) -> list[str]:
        """Write a configuration for users to read, with the origin of each location."""
        configuration, made_up = site.configuration, self.options.made_up_certificate
        secrets = {path: secret.content for path, secret in configuration.secrets.items()}
        if not with_secrets:
            certificate = made_up.content if made_up is not None else default_certificate.make()
            placeholders = {"htpasswd": _NO_PASSWORD, "pem": certificate}
            secrets = {  # lists of revoked certificates are public
                path: placeholders.get(path.rpartition(".")[2], content) for path, content in secrets.items()
            }
        document = {
            "schemaVersion": SCHEMA_VERSION,
            "kind": "Provenance",
            "locations": site.provenance,
            "reasons": [str(reason) for reason in site.model.reasons],
        }
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        write_site(folder, {**configuration.files, "provenance.json": f"{text}\n"}, secrets, inner=FOLDERS)
        hint = "" if with_secrets else "; certificates are placeholders (--with-secrets writes the real ones)"
        return [f"{folder}: {len(configuration.files)} files, for nginx -t -p {folder} -c nginx.conf{hint}"]


@dataclass(slots=True)
class NginxEngine(ProxyEngine[NginxSite]):
    """The nginx of one folder; see `IngressEngine`."""

    service: NginxService
    templates: Templates = field(kw_only=True)

    @property
    def name(self) -> str:
        """Nginx."""
        return LANGUAGE

    def hosts(self, observed: Configuration) -> int:
        """Return how many hosts are served, the default server not counted."""
        return sum(path.startswith("hosts/") for path in observed.files) - 1

    def check(
        self, world: ClusterSnapshot, observed: Configuration | None, before: NginxSite | None = None
    ) -> NginxSite:
        """Return the site for a cluster, without the Ingresses that nginx rejects."""
        if observed is None and before is not None and before.digest == self.deployed:
            observed = before.configuration
        live = dict(observed.files) if observed else {}
        whole: list[NginxSite] = []

        def compile_site(options: IngressOptions, before: NginxSite | None) -> NginxSite:
            with _compiling():
                site = compile_ingress(world, options, self.templates, served=True, live=live, before=before)
            if not options.without:
                whole.append(site)
            return site

        options = msgspec.structs.replace(self.options, now=dt.datetime.now(dt.UTC))
        candidates = Candidates(LANGUAGE, compile_site, options, before=before)
        names = selected(world, self.options)
        served = observed.digest if observed else ""
        site = self.tested(lambda site: site.digest == served, lambda test: candidates.settled(names, test, suspects))
        # nginx may accept a rejected Ingress after a change of its Service.
        return replace(site, reads=all_reads(each.reads for each in (*whole, site)) if whole else None)

    def plan(self, site: NginxSite, observed: Configuration | None) -> IngressPlan:
        """Return the plan for nginx."""
        return plan_site(observed, site.configuration, site.names, self.served())

    def deploy(self, site: NginxSite) -> DeployOutcome:
        """Deploy a site that `check` has returned."""
        self.service.naming = naming_of(site.model)
        return ProxyEngine.deploy(self, site)
