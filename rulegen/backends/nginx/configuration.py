"""The files of an nginx configuration, compiled from the Ingress model: one for each host and one for each Service."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.backends.nginx.locations.expressions import matching
from rulegen.backends.nginx.locations.signin import escaping_server
from rulegen.backends.nginx.names import host_file, upstream_file
from rulegen.backends.nginx.server import host_nodes
from rulegen.backends.nginx.shared import events_nodes, http_nodes, main_nodes, size_nodes, status_server
from rulegen.backends.nginx.upstream import upstream
from rulegen.languages.configuration import Configuration, SecretContent, digest_of
from rulegen.languages.nginx.check import check_nodes, check_skeleton
from rulegen.languages.nginx.main_file import MAIN
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
"""Name of the template of the main file."""


@dataclass(frozen=True, slots=True)
class ConfigFragment:
    """One file of a configuration, as directives.

    Attributes:
        path: Its path in the configuration.
        owner: The host or the Service that it belongs to.
        nodes: Its directives.
        decisions: The part of the model that it was compiled from, without the defaults. While it is equal, the file
            need not be compiled again.
    """

    path: str
    owner: str
    nodes: tuple[Node, ...]
    decisions: tuple[object, ...] = field(default=(), compare=False, repr=False)


def compile_host(
    server: Server, defaults: HttpDefaults, own: Iterable[Upstream] = (), *, known: ConfigFragment | None = None
) -> ConfigFragment:
    """Return the file of a host.

    Args:
        server: The host.
        defaults: Defaults of all hosts.
        own: Upstreams that only this host uses.
        known: The file from an earlier compilation with the same defaults. It is returned if nothing has changed.
    """
    upstreams = tuple(own)
    decisions = server, *upstreams
    if known is not None and known.decisions == decisions:
        return known
    return ConfigFragment(host_file(server.host), server.host, host_nodes(server, defaults, upstreams), decisions)


def compile_service(
    service: ObjectName, upstreams: Iterable[Upstream], settings: Settings, *, known: ConfigFragment | None = None
) -> ConfigFragment:
    """Return the file with the upstreams of a Service, which all hosts share; `known` as for `compile_host`."""
    decisions = tuple(upstreams)
    if known is not None and known.decisions == decisions:
        return known
    return ConfigFragment(
        upstream_file(service), str(service), tuple(upstream(member, settings) for member in decisions), decisions
    )


def compile_site(model: IngressModel, known: Mapping[str, ConfigFragment] | None = None) -> list[ConfigFragment]:
    """Return the files of all hosts and Services.

    Args:
        model: The Ingress model.
        known: Files by path, from an earlier compilation with equal defaults. Unchanged files are returned as they are.
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
    """Return the configuration that consists of these fragments.

    Args:
        model: The model that they were compiled from.
        fragments: Result of `compile_site`.
        templates: Templates, with the one of the main file.
        served: Whether nginx will run with it, so that nginx must answer the digest. False for an export.
        written: Text by path of fragments that were formatted before.

    Raises:
        ConfigError: The template cannot be rendered.
        UnquotableError: A value contains a character that cannot be written in an nginx configuration.
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
    """Return the values that the template of the main file prints.

    Args:
        model: The Ingress model.
        digest: Digest of the configuration; if empty, the servers for rulegen's own use are left out.
    """
    return {
        "main": directives(main_nodes(model.defaults), ""),
        "events": directives(events_nodes(model.defaults.settings)),
        "sizes": directives(size_nodes(model)),
        "http": directives(http_nodes(model)),
        **own_servers(model, digest),
    }


def own_servers(model: IngressModel, digest: str) -> dict[str, Value]:
    """Return the servers that listen on unix sockets for rulegen and nginx itself; none without a digest."""
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
    """Verify with an independent parser that the files contain exactly the directives that were compiled.

    Args:
        configuration: Result of `render`.
        model: As for `render`.
        fragments: As for `render`.
        templates: As for `render`.
        unchanged: Paths of files that are already served. They are not parsed again.
        served: As for `render`.

    Raises:
        MismatchError: A file contains something else.
    """
    for fragment in fragments:
        if fragment.path not in unchanged:
            check_nodes(fragment.path, configuration.files[fragment.path], fragment.nodes)
    values = main_values(model, configuration.digest if served else "")
    check_skeleton(MAIN, configuration.files[MAIN], templates, TEMPLATE, values)


def provenance(model: IngressModel) -> list[dict[str, Any]]:
    """Return the Ingress, rule and path of each location, ordered by host and location."""
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
    """Return the Ingresses of each host's file, to attribute an error message of nginx."""
    return {host_file(server.host): server.ingresses for server in model.servers.values()}


def _locations(model: IngressModel) -> Iterator[tuple[Server, Location]]:
    for server in model.servers.values():
        for location in server.locations:
            yield server, location
