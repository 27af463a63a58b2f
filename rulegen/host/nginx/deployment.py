"""The site of this host: Ingresses compiled, tried by nginx, those that it refuses left out, the rest served."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulegen.compiler.ingress.compile import CandidateSite, NginxSite, ours
from rulegen.compiler.ingress.refused_ingresses import settle
from rulegen.errors import HostError
from rulegen.host.nginx.disk import default_certificate
from rulegen.host.nginx.resolver.settings import Naming
from rulegen.plan.nginx import NginxPlan, plan_site

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.host.nginx.service import NginxService, Outcome
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.nginx.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions


def _naming(model: IngressModel) -> Naming | None:
    """Return what the process for names must know; None where nginx does not ask it."""
    port = model.defaults.names_port
    return Naming.of(port, model.resolvers, model.forbidden) if port else None


@dataclass(slots=True)
class NginxDeployment:
    """What nginx of one folder serves, and is to serve.

    Attributes:
        look: Returns options with what the host is now.
        notes: What a user should be told although work goes on.
        tries_aside: Whether a configuration is tried in a folder that is thrown away, so that nothing is written until
            `apply`. Else it is tried in nginx's own folder, where `apply` then finds it written.
    """

    service: NginxService
    templates: Templates
    options: IngressOptions
    notes: list[str] = field(default_factory=list)
    tries_aside: bool = False
    look: Callable[[IngressOptions], IngressOptions] = lambda options: options

    def refresh(self) -> bool:
        """Take the options with what the host is now; return whether another configuration may follow from them."""
        before, self.options = self.options, self.look(self.options)
        return self.options != before

    @property
    def is_serving(self) -> bool:
        """Whether nginx runs from the folder, and tells what it serves."""
        return self.service.folder.is_dir() and bool(self.service.status().digest)

    def observed(self) -> Configuration | None:
        """Return what is served from the folder; None where nothing is, or nobody can tell."""
        if not self.service.folder.is_dir():
            return None
        try:
            return self.service.releases.current()
        except HostError as error:
            self._note(f"{error.message}: it is planned as if nothing were served, and written anew")
            return None

    def settled(
        self, world: ClusterSnapshot, observed: Configuration | None, before: NginxSite | None = None
    ) -> NginxSite:
        """Return the site for a World, without the Ingresses that nginx does not take, each told with its reason.

        Args:
            world: The objects.
            observed: What is served: of it nothing need be tried again.
            before: The site as it was decided last: what is decided alike is neither compiled nor rendered again.

        Raises:
            HostError: nginx refuses it even without any Ingress, or cannot be asked.
            ConfigError: A setting or a template cannot be used.
        """
        live = dict(observed.files) if observed else {}
        options = replace(self.options, now=dt.datetime.now(dt.UTC))
        trial = CandidateSite(world, options, self.templates, served=True, live=live, before=before)
        digest = observed.digest if observed else ""

        with self.service.aside() if self.tries_aside else nullcontext(self.service) as tester:

            def tested(configuration: Configuration) -> str | None:
                refusal = trial.refusal(configuration)
                if refusal is not None or configuration.digest == digest:
                    return refusal
                verdict = tester.test(configuration)
                self._note(verdict.note)
                return verdict.message

            settled = settle(ours(world, self.options), trial.compiled, tested, trial.suspects)
        return trial.settled(settled.quarantined)

    def plan(self, site: NginxSite, observed: Configuration | None) -> NginxPlan:
        """Return what changes for nginx."""
        served = self.service.status().digest if self.service.folder.is_dir() else ""
        return plan_site(observed, site.configuration, site.names, served)

    def taken_ports(self, site: NginxSite) -> tuple[str, ...]:
        """Return who else holds a port that nginx is to listen on, in words."""
        host = site.model.defaults.host
        return tuple(map(str, self.service.taken_ports((host.http_port, host.https_port))))

    def apply(self, site: NginxSite) -> Outcome:
        """Serve a site that was settled.

        Raises:
            HostError: It cannot be done; says what is served.
        """
        made_up = self.options.made_up_certificate
        if made_up is not None and default_certificate.load(self.service.folder) is None:
            self.service.releases.prepare()
            default_certificate.store(self.service.folder, made_up.content)
        host = site.model.defaults.host
        listens = (host.http_port, host.https_port)
        return self.service.apply(site.configuration, listens=listens, tested=True, naming=_naming(site.model))

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)
