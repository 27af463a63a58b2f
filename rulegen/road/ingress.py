"""The road from Ingresses to a configuration of nginx; nothing here touches the host.

World ─ resolve ─► L7 model ─ compile, per host ─► Fragments ─ render ─► Configuration ─ check ─► diff with observed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rulegen.backends import nginx
from rulegen.kube.world import ObjectName
from rulegen.model.ingress.ir import Verdict
from rulegen.model.ingress.owners import in_order
from rulegen.model.ingress.resolve import resolve_ingress

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rulegen.backends.nginx import Fragment
    from rulegen.kube.world import World
    from rulegen.languages.nginx.configuration import Configuration
    from rulegen.languages.nginx.templates import Templates
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.options import IngressOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All that nginx is to serve, as a model, as directives and as files."""

    model: IngressModel
    fragments: Sequence[Fragment]
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


def compile_ingress(
    world: World, options: IngressOptions, templates: Templates, *, served: bool, live: Mapping[str, str] | None = None
) -> Site:
    """Return the configuration for the Ingresses of a World, checked by the parser.

    Args:
        world: The objects.
        options: What is wanted.
        templates: With the main file's template.
        served: Whether it is for a nginx that rulegen runs, and not for reading.
        live: Files that are served already: what is among them, byte for byte, needs no second look.

    Raises:
        ConfigError: A setting or a template cannot be used.
        MismatchError: What was written is not what was meant; nothing of it may be served.
    """
    model = resolve_ingress(world, options)
    fragments = nginx.compile_site(model)
    configuration = nginx.render(model, fragments, templates, served=served)
    unchanged = {path for path, text in (live or {}).items() if configuration.files.get(path) == text}
    nginx.check(configuration, model, fragments, templates, unchanged=unchanged, served=served)
    return Site(model=model, fragments=fragments, configuration=configuration)


def without(options: IngressOptions, names: Collection[str], reason: str) -> IngressOptions:
    """Return options that leave out some Ingresses, named as text."""
    return replace(options, without={ObjectName(*name.split("/", 1)): reason for name in names})


def ours(world: World, options: IngressOptions) -> list[str]:
    """Return the names of the Ingresses that are ours, oldest first."""
    refusal = options.selection.refusal
    return [
        f"{one.metadata.namespace}/{one.metadata.name}"
        for one in in_order(world.ingresses.values())
        if not refusal(one, world.ingress_classes)
    ]


def suspects(site: Site, message: str) -> list[str]:
    """Return the Ingresses that a message of nginx points to, by the file that it names."""
    found = [
        str(name) for path, names in nginx.ingresses_by_file(site.model).items() if path in message for name in names
    ]
    return list(dict.fromkeys(found))


def quarantined(site: Site) -> dict[str, str]:
    """Return the Ingresses that nginx does not take, with the reason of each."""
    return {reason.ingress: reason.message for reason in site.model.reasons if reason.verdict is Verdict.QUARANTINED}
