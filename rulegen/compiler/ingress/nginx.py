"""From Ingresses to a configuration of nginx; nothing here touches the host.

World ─ resolve ─► L7 model ─ compile, per host ─► Fragments ─ render ─► Configuration ─ check ─► diff with observed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rulegen.backends.nginx import configuration as nginx
from rulegen.model.ingress.reads import ServiceReads
from rulegen.model.ingress.resolve import decide_ingress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.backends.nginx.configuration import ConfigFragment
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.nginx.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.resolve import IngressDecisions


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxSite:
    """All that nginx is to serve, as a model, as directives and as files.

    Attributes:
        decisions: With them the next model is decided; None if they are not known.
        reads: The Services and addresses by which another site may follow; None if any may matter.
    """

    model: IngressModel
    fragments: Sequence[ConfigFragment]
    configuration: Configuration
    decisions: IngressDecisions | None = field(default=None, compare=False, repr=False)
    reads: ServiceReads | None = field(default=None, compare=False, repr=False)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Where each location comes from."""
        return nginx.provenance(self.model)

    @property
    def digest(self) -> str:
        """The digest of the configuration."""
        return self.configuration.digest

    @property
    def names(self) -> dict[str, tuple[str, str]]:
        """What each file is for: kind and name."""
        return {
            fragment.path: ("host" if fragment.path.startswith("hosts/") else "upstream", fragment.owner)
            for fragment in self.fragments
        }

    def still_right(self, defaults: HttpDefaults) -> Mapping[str, ConfigFragment]:
        """Return the fragments, by path, that need no second look where the same is decided for their owners."""
        return {fragment.path: fragment for fragment in self.fragments} if self.model.defaults == defaults else {}


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
        before: The site as it was: what still holds of its decisions is taken from it, and so are files of hosts and
            Services for which the same is decided.

    Raises:
        ConfigError: A setting or a template cannot be used.
        MismatchError, UnquotableError: What was written is not what was meant; nothing of it may be served.
    """
    decisions = decide_ingress(world, options, before.decisions if before is not None else None)
    model = decisions.model
    known = before.still_right(model.defaults) if before is not None else {}
    fragments = nginx.compile_site(model, known)
    kept = [fragment.path for fragment in fragments if known.get(fragment.path) is fragment]
    written = {path: before.configuration.files[path] for path in kept} if before is not None else {}
    configuration = nginx.render(model, fragments, templates, served=served, written=written)
    unchanged = {path for path, text in (live or {}).items() if configuration.files.get(path) == text} | written.keys()
    nginx.check(configuration, model, fragments, templates, unchanged=unchanged, served=served)
    return NginxSite(
        model=model, fragments=fragments, configuration=configuration, decisions=decisions, reads=decisions.reads
    )


def suspects(site: NginxSite, message: str) -> list[ObjectName]:
    """Return the Ingresses that a message of nginx points to, by the file that it names."""
    files = nginx.ingresses_by_file(site.model)
    return list(dict.fromkeys(name for path, names in files.items() if path in message for name in names))


def all_reads(sites: Iterable[NginxSite]) -> ServiceReads | None:
    """Return the Services and addresses that any of these sites was decided from; None if one may need any."""
    reads = ServiceReads()
    for site in sites:
        if site.reads is None:
            return None
        reads = reads.with_others(site.reads)
    return reads
