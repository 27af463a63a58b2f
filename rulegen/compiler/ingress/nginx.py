"""From Ingresses to a configuration of nginx; nothing here touches the host.

ClusterSnapshot ─ resolve ─► L7 model ─ compile, per host ─► fragments ─ render ─► files ─ check ─► diff with observed
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from rulegen.backends.nginx import configuration as nginx
from rulegen.kube.objects.names import ObjectKey
from rulegen.model.ingress.proxying import NO_OPTIONS
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.resolve import decide_ingress
from rulegen.model.ingress.values.annotations.table import not_obeyed_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rulegen.backends.nginx.configuration import ConfigFragment
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.languages.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.resolve import IngressDecisions
    from rulegen.model.ingress.upstreams.reads import ServiceReads

_OF_OTHERS: Final = f"{', '.join(not_obeyed_by('nginx'))} have no effect with nginx"


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxSite:
    """The complete configuration of nginx: as a model, as directives and as files.

    Attributes:
        decisions: Input for the next model; None if they are not known.
        reads: Services and addresses that may change the configuration; None if any may.
    """

    model: IngressModel
    fragments: Sequence[ConfigFragment]
    configuration: Configuration
    decisions: IngressDecisions | None = field(default=None, compare=False, repr=False)
    reads: ServiceReads | None = field(default=None, compare=False, repr=False)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Source of each location."""
        return nginx.provenance(self.model)

    @property
    def digest(self) -> str:
        """The digest of the configuration."""
        return self.configuration.digest

    @property
    def names(self) -> dict[str, tuple[str, str]]:
        """Purpose of each file: kind and name."""
        return {
            fragment.path: ("host" if fragment.path.startswith("hosts/") else "upstream", fragment.owner)
            for fragment in self.fragments
        }

    def still_right(self, defaults: HttpDefaults) -> Mapping[str, ConfigFragment]:
        """Return the fragments by path that need no new verification if the decisions for their owners are equal."""
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
    """Return the configuration for the Ingresses of a snapshot, verified by the parser.

    Args:
        world: The objects.
        options: The options.
        templates: Templates, including that of the main file.
        served: Whether it is for an nginx that rulegen runs, not only for reading.
        live: Files that are already served: an identical file needs no new verification.
        before: The previous site: valid decisions are reused, and so are files of hosts and Services with equal
            decisions.

    Raises:
        ConfigError: A setting or a template is invalid.
        MismatchError, UnquotableError: The text differs from the intended directives; it must not be served.
    """
    decisions = decide_ingress(world, options, before.decisions if before is not None else None)
    model = _with_reasons(decisions.model)
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


def _with_reasons(model: IngressModel) -> IngressModel:
    """Return the model with a reason for each path with annotations that only another engine applies."""
    own = {
        Reason(ObjectKey("Ingress", location.ingress), Verdict.UNSUPPORTED, location.rule, _OF_OTHERS)
        for server in model.servers.values()
        for location in server.locations
        if location.policy.servers is not NO_OPTIONS and location.ingress is not None
    }
    return replace(model, reasons=tuple(sorted({*model.reasons, *own}, key=attrgetter("rank")))) if own else model


def suspects(site: NginxSite, message: str) -> list[ObjectName]:
    """Return the Ingresses that a message of nginx refers to, by the file that it names."""
    files = nginx.ingresses_by_file(site.model)
    return list(dict.fromkeys(name for path, names in files.items() if path in message for name in names))
