"""The ingress engine HAProxy: compiles Ingresses, tests the result, leaves out rejected ones, and serves the rest."""

from __future__ import annotations

import datetime as dt
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.backends.haproxy.names import CONFIG, HOSTS, USERS, WORD_MAPS, mark
from rulegen.backends.haproxy.upstream import moved_servers
from rulegen.compiler.ingress.candidates import Candidates, NotCompiledError
from rulegen.compiler.ingress.engine import DeployAction
from rulegen.compiler.ingress.haproxy import HaproxySite, compile_haproxy, suspects
from rulegen.errors import RulegenError, internal_error
from rulegen.host.files.output import write_site
from rulegen.host.files.self_signed import make
from rulegen.host.haproxy import live, moves, worker
from rulegen.host.haproxy.pending import HINDERED_S, RELOAD_PAUSE_S
from rulegen.host.proxy.engine import ProxyEngine
from rulegen.host.proxy.naming import naming_of
from rulegen.languages.haproxy.check import DifferenceError
from rulegen.languages.haproxy.parts import changed_part
from rulegen.languages.haproxy.runtime import structure_of
from rulegen.languages.haproxy.text import UnwritableError, format_map, format_sections
from rulegen.model.ingress.routing.selection import selected
from rulegen.model.ingress.upstreams.moves import moved_upstreams
from rulegen.model.ingress.upstreams.reads import all_reads
from rulegen.plan.haproxy import HAPROXY, LANGUAGE, plan_running
from rulegen.plan.show import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rulegen.compiler.ingress.engine import DeployOutcome
    from rulegen.host.haproxy.service import HaproxyService
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.plan.ingress import IngressPlan

FOLDERS: Final = ("maps",)
_UNEQUAL: Final = (
    "the state that HAProxy reports differs from its files even after a reload; the plan shows the difference"
)
_NO_USER: Final = (("::", "!"),)
"""A map of passwords without users: no client can send this name."""


@contextmanager
def _compiling() -> Iterator[None]:
    """Raise NotCompiledError for what the objects may be the reason of; errors of options and of the host pass."""
    try:
        yield
    except (DifferenceError, UnwritableError) as error:
        raise NotCompiledError(error.message) from error
    except (RulegenError, MemoryError):
        raise
    except Exception as error:
        raise NotCompiledError(internal_error(error), is_internal=True) from error


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
        """Return a configuration that HAProxy 2.6 takes, without Ingresses from which none can be compiled."""

        def compile_site(options: IngressOptions, before: HaproxySite | None) -> HaproxySite:
            del before
            with _compiling():
                return compile_haproxy(world, options, served=False)

        candidates = Candidates(LANGUAGE, compile_site, self.options)
        return candidates.settled(selected(world, self.options), lambda _: None, suspects)

    def plan_all(self, site: HaproxySite) -> IngressPlan:
        """Return the plan for a host on which HAProxy serves nothing."""
        return msgspec.structs.replace(HAPROXY.plan_site(None, site.configuration, {}), runs=False)

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


@dataclass(slots=True)
class HaproxyEngine(ProxyEngine[HaproxySite]):
    """The HAProxy of one folder; see `IngressEngine`.

    Attributes:
        clock: Returns the time in seconds.
        reloaded_at: The time of the last start or reload by this process.
        read: The configuration that this process has deployed last completely.
        given: What HAProxy was given last by this process, also before its files are written; None if that is unknown.
        unequal: The digest of a configuration that HAProxy reports otherwise also after a reload.
    """

    service: HaproxyService
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    reloaded_at: float = field(default=-math.inf, kw_only=True)
    read: Configuration | None = field(default=None, kw_only=True)
    given: Configuration | None = field(default=None, kw_only=True)
    unequal: str = field(default="", kw_only=True)
    _moved: set[str] = field(default_factory=set, init=False)

    @property
    def name(self) -> str:
        """HAProxy."""
        return LANGUAGE

    def hosts(self, observed: Configuration) -> int:
        """Return how many names of hosts are served."""
        return len(observed.files.get(HOSTS, "").splitlines())

    def check(
        self, world: ClusterSnapshot, observed: Configuration | None, before: HaproxySite | None = None
    ) -> HaproxySite:
        """Return the site for a cluster, without the Ingresses that HAProxy rejects."""
        if before is not None and before.configuration is self.given:
            # Also if its files are not written yet: HAProxy may already use spare backends of which older files know
            # nothing. Files that something else has made live are another matter.
            if observed is None or observed.digest == self.deployed:
                observed = before.configuration
        elif observed is None and before is not None and before.digest == self.deployed:
            observed = before.configuration

        whole: list[HaproxySite] = []

        def compile_site(options: IngressOptions, before: HaproxySite | None) -> HaproxySite:
            with _compiling():
                site = compile_haproxy(world, options, served=True, live=observed, before=before)
            if not options.without:
                whole.append(site)
            return site

        options = msgspec.structs.replace(self.options, now=dt.datetime.now(dt.UTC))
        candidates = Candidates(LANGUAGE, compile_site, options, before=before)
        names = selected(world, self.options)

        def is_accepted(site: HaproxySite) -> bool:
            if observed is None:
                return False
            is_before = before is not None and observed is before.configuration
            structure = before.structure if before is not None and is_before else structure_of(observed)
            return structure == site.structure and live.differs_in_data(observed, site.configuration)

        site = self.tested(is_accepted, lambda test: candidates.settled(names, test, suspects))
        # HAProxy may accept a rejected Ingress after a change of its Service.
        return replace(site, reads=all_reads(each.reads for each in (*whole, site)) if whole else None)

    def move(self, site: HaproxySite, world: ClusterSnapshot, services: Collection[ObjectName]) -> bool:
        """Give HAProxy the endpoints of Services over its socket, without its files; see `IngressEngine`."""
        if self.given is not site.configuration or site.decisions is None:
            return False
        common, lookups = site.decisions.common, site.decisions.lookups
        if world.addresses is None or world.addresses is not lookups.world.addresses:
            return False
        upstreams = moved_upstreams(lookups.targets(common, world.services), site.values.upstreams, services)
        if upstreams is None or any(mark(upstream.name) in site.values.asked for upstream in upstreams):
            return False  # addresses of auth servers and mirrors stand in a map
        try:
            texts = moved_servers(upstreams, site.values.chosen, site.model.defaults.settings)
        except UnwritableError:
            return False
        self._moved.update(texts)
        return moves.move(self.service.folder, texts, self.deployed)

    def give(self, before: HaproxySite, decide: Callable[[], HaproxySite]) -> bool:
        """Give HAProxy a later site over its socket, without its files; see `IngressEngine`."""
        if self.given is None or self.given is not before.configuration:
            return False
        site = decide()
        after = site.configuration
        if before.structure != site.structure or naming_of(site.model) != self.service.naming:
            return False
        held = before.values, before.configuration.secrets
        part = changed_part(held, (site.values, after.secrets), self._moved, word_maps=WORD_MAPS)
        self.given, self._moved = after, set()
        secrets = {path: secret.content for path, secret in after.secrets.items()}
        return moves.give(self.service.folder, part, secrets, self.deployed)

    def plan(self, site: HaproxySite, observed: Configuration | None) -> IngressPlan:
        """Return the plan for HAProxy."""
        served = self.served()
        seen = worker.observe(self.service.folder) if served else None
        return plan_running(observed, seen.state if seen else None, site.configuration, served)

    def deploy(self, site: HaproxySite) -> DeployOutcome:
        """Deploy a site that `check` has returned, without a reload where the running HAProxy can be changed.

        A reload that is not urgent waits until the last one is 30 s ago, or while the master of HAProxy hangs.
        """
        configuration = site.configuration
        self.given, self._moved = None, set()
        self.service.naming = naming_of(site.model)
        outcome = None if configuration.digest == self.unequal else live.update(self.service, configuration)
        if outcome is None and (outcome := self._meanwhile(configuration)) is not None:
            return outcome
        if outcome is None:
            outcome = ProxyEngine.deploy(self, site)
            if outcome.action is not DeployAction.NOTHING:
                self.reloaded_at = self.clock()
                if not live.is_held(self.service, configuration):
                    self.unequal = configuration.digest
                    outcome = msgspec.structs.replace(outcome, notes=(*outcome.notes, _UNEQUAL))
        self.deployed, self.read, self.given = outcome.digest, configuration, configuration
        return outcome

    def _meanwhile(self, configuration: Configuration) -> DeployOutcome | None:
        """Deploy what needs no reload if the reload waits; None if it does not."""
        if self.read is None or self.read.digest == configuration.digest:
            return None
        left_s = self.reloaded_at + RELOAD_PAUSE_S - self.clock()
        if left_s <= 0 and self.hindrance:
            left_s = HINDERED_S
        if left_s <= 0:
            return None
        outcome = live.update_meanwhile(self.service, self.read, configuration)
        return msgspec.structs.replace(outcome, digest=self.deployed, again_s=left_s) if outcome is not None else None
