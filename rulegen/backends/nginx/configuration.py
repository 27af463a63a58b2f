"""The nginx backend: an L7 model as the files of a configuration, one for each host and one for each Service."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.backends.nginx.locations.location import matching
from rulegen.backends.nginx.locations.signin import escaping_server
from rulegen.backends.nginx.names import host_file, upstream_file
from rulegen.backends.nginx.server import host_nodes
from rulegen.backends.nginx.shared import events_nodes, http_nodes, main_nodes, size_nodes, status_server
from rulegen.backends.nginx.upstream import upstream
from rulegen.languages.nginx.check import check_nodes, check_skeleton
from rulegen.languages.nginx.configuration import MAIN, Configuration, SecretContent, digest_of
from rulegen.languages.nginx.templates import directives
from rulegen.languages.nginx.text import format_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.nginx.templates import Templates, Value
    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel, Location, Server, Upstream
    from rulegen.model.ingress.values.settings import Settings

TEMPLATE: Final = "nginx.conf.j2"
"""The template of the main file."""


@dataclass(frozen=True, slots=True)
class ConfigFragment:
    """One file of a configuration, as directives.

    Attributes:
        path: Where it lies.
        owner: The host, or the Service, that it is for.
        nodes: What it says.
        decisions: What it was compiled from, but for the defaults: of equal ones it need not be compiled again.
    """

    path: str
    owner: str
    nodes: tuple[Node, ...]
    decisions: tuple[object, ...] = field(default=(), compare=False, repr=False)


def compile_host(
    server: Server, defaults: HttpDefaults, own: Iterable[Upstream] = (), *, known: ConfigFragment | None = None
) -> ConfigFragment:
    """Return the file of one host.

    Args:
        server: The host.
        defaults: What holds for all.
        own: The upstreams that it alone uses.
        known: The file as it was compiled with the same defaults; returned itself where nothing is decided otherwise.
    """
    upstreams = tuple(own)
    decisions = server, *upstreams
    if known is not None and known.decisions == decisions:
        return known
    return ConfigFragment(host_file(server.host), server.host, host_nodes(server, defaults, upstreams), decisions)


def compile_service(
    service: ObjectName, upstreams: Iterable[Upstream], settings: Settings, *, known: ConfigFragment | None = None
) -> ConfigFragment:
    """Return the file with the upstreams of one Service, which hosts share; `known` as for a host."""
    decisions = tuple(upstreams)
    if known is not None and known.decisions == decisions:
        return known
    return ConfigFragment(
        upstream_file(service), str(service), tuple(upstream(member, settings) for member in decisions), decisions
    )


def compile_site(model: IngressModel, known: Mapping[str, ConfigFragment] | None = None) -> list[ConfigFragment]:
    """Return the files of all hosts and Services.

    Args:
        model: All decisions.
        known: Files by path, as they were compiled with equal defaults; those of which nothing is decided otherwise
            are returned themselves.
    """
    known = known or {}
    defaults = model.defaults
    own: defaultdict[str, list[Upstream]] = defaultdict(list)
    shared: defaultdict[ObjectName, list[Upstream]] = defaultdict(list)
    for member in model.upstreams.values():
        if member.host is not None:
            own[member.host].append(member)
        else:
            shared[member.service].append(member)
    hosts = [
        compile_host(server, defaults, own.get(host, ()), known=known.get(host_file(host)))
        for host, server in model.servers.items()
    ]
    return hosts + [
        compile_service(service, shared[service], defaults.settings, known=known.get(upstream_file(service)))
        for service in sorted(shared)
    ]


def render(
    model: IngressModel,
    fragments: Iterable[ConfigFragment],
    templates: Templates,
    *,
    served: bool,
    written: Mapping[str, str] | None = None,
) -> Configuration:
    """Return the configuration that fragments make.

    Args:
        model: What holds for all hosts.
        fragments: Of `compile_site`.
        templates: With the template of the main file.
        served: Whether nginx is to tell rulegen its digest; not for one that is for reading.
        written: The texts, by path, of those fragments that were rendered before.

    Raises:
        ConfigError: The template cannot be rendered.
        UnquotableError: A value that no text of a configuration can mean.
    """
    written = written or {}
    files = {fragment.path: written.get(fragment.path) or str(format_nodes(fragment.nodes)) for fragment in fragments}
    secrets = {path: SecretContent(file.content, for_workers=file.for_workers) for path, file in model.secrets.items()}
    values = main_values(model, "")
    blank = templates.render(TEMPLATE, values)
    digest = digest_of({**files, MAIN: blank}, secrets)
    files[MAIN] = templates.render(TEMPLATE, {**values, **own_servers(model, digest)}) if served else blank
    return Configuration(files=files, secrets=secrets, digest=digest)


def main_values(model: IngressModel, digest: str) -> dict[str, Value]:
    """Return what the template of the main file prints; without a digest, it has no servers of rulegen's own."""
    return {
        "main": directives(main_nodes(model.defaults), ""),
        "events": directives(events_nodes(model.defaults.settings)),
        "sizes": directives(size_nodes(model)),
        "http": directives(http_nodes(model)),
        **own_servers(model, digest),
    }


def own_servers(model: IngressModel, digest: str) -> dict[str, Value]:
    """Return the servers on sockets of nginx's own folder, which alone know the digest; none without a digest."""
    servers = [status_server(digest), escaping_server(model.defaults.settings)] if digest else []
    return {"status": directives(servers)}


def check(
    configuration: Configuration,
    model: IngressModel,
    fragments: Iterable[ConfigFragment],
    templates: Templates,
    *,
    unchanged: Collection[str] = (),
    served: bool,
) -> None:
    """Make sure that the files say what was meant, read by a parser that shares nothing with what wrote them.

    Args:
        configuration: Of `render`.
        model: As rendered.
        fragments: As rendered.
        templates: As rendered.
        unchanged: Paths of files that are served already, and need no second look.
        served: As rendered.

    Raises:
        MismatchError: A file says anything else.
    """
    for fragment in fragments:
        if fragment.path not in unchanged:
            check_nodes(fragment.path, configuration.files[fragment.path], fragment.nodes)
    values = main_values(model, configuration.digest if served else "")
    check_skeleton(MAIN, configuration.files[MAIN], templates, TEMPLATE, values)


def provenance(model: IngressModel) -> list[dict[str, Any]]:
    """Return for each location where it comes from, in order of host and location."""
    return [
        {
            "file": host_file(server.host),
            "server": server.host or "_",
            "location": " ".join(matching(location)),
            "ingress": str(location.ingress) if location.ingress else None,
            "rule": location.rule or None,
            "path": location.source or None,
            "canaries": [str(canary.ingress) for canary in location.canaries],
        }
        for server, location in _locations(model)
    ]


def ingresses_by_file(model: IngressModel) -> Mapping[str, tuple[ObjectName, ...]]:
    """Return which Ingresses make each host's file, so that an error in it leads to them."""
    return {host_file(server.host): server.ingresses for server in model.servers.values()}


def _locations(model: IngressModel) -> Iterator[tuple[Server, Location]]:
    for server in model.servers.values():
        for location in server.locations:
            yield server, location
