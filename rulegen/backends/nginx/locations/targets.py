"""Targets of a location that nginx chooses for each request, or resolves by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.nginx.locations.proxying import resolver_of
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, variable
from rulegen.model.ingress.ir import ToName, ToUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import Location, LocationPolicy


def written_target(target: ToUpstream | ToName) -> str:
    """Return a target as nginx's `…_pass` takes it from a variable: an upstream, or host and port to resolve."""
    return target.upstream if isinstance(target, ToUpstream) else f"{target.host}:{target.port}"


def names_of(location: Location) -> list[ToName]:
    """Return the targets of a location, and of its canaries, that are names."""
    targets = (location.target, *(canary.target for canary in location.canaries))
    return [target for target in targets if isinstance(target, ToName)]


def logged_target(name: str) -> str:
    """Return the variable with the chosen target as logs name it."""
    return f"log_{name}"


def name_maps(name: str, location: Location, chosen: str) -> Iterator[Directive]:
    """Yield the maps of a location with canaries some of whose targets are names: what logs and TLS need of the choice.

    Args:
        name: Identifier of the location.
        location: The location.
        chosen: Variable with the chosen target.
    """
    names = names_of(location)
    if not names:
        return
    yield _by_target(chosen, logged_target(name), {written_target(known): known.key for known in names}, chosen)
    if _sends_names(location.policy):
        yield _by_target(chosen, f"sni_{name}", {written_target(known): known.host for known in names}, "")


def _by_target(chosen: str, made: str, texts: Mapping[str, str], otherwise: str) -> Directive:
    default: Word = variable(otherwise) if otherwise else ""
    entries = [Entry("default", default, KeyKind.FIXED), *(Entry(key, text) for key, text in texts.items())]
    return Directive("map", (variable(chosen), f"${made}"), tuple(entries))


def _sends_names(policy: LocationPolicy) -> bool:
    """Whether a TLS server that is known by a name is sent it, so that it can choose its certificate."""
    return policy.protocol in {"HTTPS", "GRPCS", "AUTO_HTTP"} and policy.proxy_ssl is None


def resolving(name: str, location: Location, defaults: HttpDefaults, module: str) -> Iterator[Node]:
    """Yield what a location needs for targets that nginx resolves."""
    names = names_of(location)
    if not names:
        return
    if not location.canaries:
        yield Directive("set", ("$external", written_target(names[0])))
    # All names of a location have one resolver: the stricter one, which gives no address of this node.
    own = {defaults.host.http_port, defaults.host.https_port}
    yield from resolver_of(defaults, next((known.port for known in names if known.port not in own), names[0].port))
    if not _sends_names(location.policy):
        return
    if location.canaries:  # an empty name is not sent: for the upstreams among the targets
        yield Directive(f"{module}_ssl_name", (variable(f"sni_{name}"),))
    yield Directive(f"{module}_ssl_server_name", ("on",))
