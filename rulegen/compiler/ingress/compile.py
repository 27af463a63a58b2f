"""From Ingresses to a configuration of nginx; nothing here touches the host.

World ─ resolve ─► L7 model ─ compile, per host ─► Fragments ─ render ─► Configuration ─ check ─► diff with observed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rulegen.backends.nginx import configuration as nginx
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.nginx.check import MismatchError
from rulegen.languages.nginx.configuration import Configuration
from rulegen.languages.nginx.text import UnquotableError
from rulegen.model.ingress.resolve import resolve_ingress
from rulegen.model.ingress.routing.ingresses import in_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rulegen.backends.nginx.configuration import ConfigFragment
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxSite:
    """All that nginx is to serve, as a model, as directives and as files."""

    model: IngressModel
    fragments: Sequence[ConfigFragment]
    configuration: Configuration

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Where each location comes from."""
        return nginx.provenance(self.model)

    @property
    def names(self) -> dict[str, tuple[str, str]]:
        """What each file is for: kind and name."""
        return {
            fragment.path: ("host" if fragment.path.startswith("hosts/") else "upstream", fragment.owner)
            for fragment in self.fragments
        }

    def still_right(self, defaults: HttpDefaults) -> Mapping[str, ConfigFragment]:
        """Return the fragments, by path, that need no second look where the same is decided for their owners."""
        return {one.path: one for one in self.fragments} if self.model.defaults == defaults else {}


def compile_ingress(
    world: ClusterSnapshot,
    options: IngressOptions,
    templates: Templates,
    *,
    served: bool,
    live: Mapping[str, str] | None = None,
    before: NginxSite | None = None,
) -> NginxSite:
    """Return the configuration for the Ingresses of a World, checked by the parser.

    Args:
        world: The objects.
        options: What is wanted.
        templates: With the main file's template.
        served: Whether it is for a nginx that rulegen runs, and not for reading.
        live: Files that are served already: what is among them, byte for byte, needs no second look.
        before: The site as it was: files of hosts and Services for which the same is decided are taken from it.

    Raises:
        ConfigError: A setting or a template cannot be used.
        MismatchError: What was written is not what was meant; nothing of it may be served.
    """
    model = resolve_ingress(world, options)
    known = before.still_right(model.defaults) if before is not None else {}
    fragments = nginx.compile_site(model, known)
    kept = [one.path for one in fragments if known.get(one.path) is one]
    written = {path: before.configuration.files[path] for path in kept} if before is not None else {}
    configuration = nginx.render(model, fragments, templates, served=served, written=written)
    unchanged = {path for path, text in (live or {}).items() if configuration.files.get(path) == text} | written.keys()
    nginx.check(configuration, model, fragments, templates, unchanged=unchanged, served=served)
    return NginxSite(model=model, fragments=fragments, configuration=configuration)


def ours(world: ClusterSnapshot, options: IngressOptions) -> list[str]:
    """Return the names of the Ingresses that are ours, oldest first."""
    refusal = options.selection.refusal
    return [
        f"{one.metadata.namespace}/{one.metadata.name}"
        for one in in_order(world.ingresses.values())
        if not refusal(one, world)
    ]


class CandidateSite:
    """Compiles a site with and without some of its Ingresses, to find out which of them nginx does not take."""

    def __init__(
        self,
        world: ClusterSnapshot,
        options: IngressOptions,
        templates: Templates,
        *,
        served: bool,
        live: Mapping[str, str] | None = None,
        before: NginxSite | None = None,
    ) -> None:
        """Take the arguments of `compile_ingress`."""
        self._world, self._options, self._templates = world, options, templates
        self._served, self._live, self._before = served, live, before
        self._sites: dict[frozenset[str], NginxSite] = {}
        self._refusals: dict[str, str] = {}

    def compiled(self, dropped: frozenset[str]) -> Configuration:
        """Return the configuration without some Ingresses; one that could not be made has a refusal and no files."""
        if dropped in self._sites:
            return self._sites[dropped].configuration
        try:
            site = self._sites[dropped] = self._site(dict.fromkeys(dropped, ""))
        except (MismatchError, UnquotableError) as error:
            name = f"refused {len(self._refusals)}"
            self._refusals[name] = error.message
            return Configuration(files={}, digest=name)
        return site.configuration

    def refusal(self, configuration: Configuration) -> str | None:
        """Return why a configuration could not be made; None where it could."""
        return self._refusals.get(configuration.digest)

    def suspects(self, message: str) -> list[str]:
        """Return the Ingresses that a message points to, by the file that it names."""
        whole = self._sites.get(frozenset())
        files = nginx.ingresses_by_file(whole.model) if whole else {}
        found = [str(name) for path, names in files.items() if path in message for name in names]
        return list(dict.fromkeys(found))

    def settled(self, quarantined: Mapping[str, str]) -> NginxSite:
        """Return the site without the Ingresses that are refused, each of which is told with its reason."""
        known = self._sites.get(frozenset())
        if not quarantined and known is not None:
            return known
        return self._site({name: f"nginx rejects it: {reason}" for name, reason in quarantined.items()})

    def _site(self, left_out: Mapping[str, str]) -> NginxSite:
        names = {ObjectName(*name.split("/", 1)): reason for name, reason in left_out.items()}
        options = replace(self._options, without=names)
        before = self._sites.get(frozenset(), self._before)
        return compile_ingress(
            self._world, options, self._templates, served=self._served, live=self._live, before=before
        )
