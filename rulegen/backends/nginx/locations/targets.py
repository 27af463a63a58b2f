"""Targets of a location that nginx chooses for each request, or resolves by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.nginx.locations.proxying import resolver_of
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, variable
from rulegen.model.ingress.ir import FixedResponse, ToName, ToUpstream

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


def logged_target(target: ToUpstream | ToName) -> str:
    """Return the text that logs have for a target: Service and port, and perhaps more behind a dot."""
    return target.upstream if isinstance(target, ToUpstream) else target.key


def logged(name: str, location: Location, module: str, address: Word) -> Iterator[Node]:
    """Yield the variables for logs of where requests of a location go.

    Args:
        name: Identifier of the location, if it has canaries.
        location: The location.
        module: nginx's module for its backend.
        address: What the module's `…_pass` is given.

    nginx itself knows the name of the upstream only over HTTP, and not that of the main one beside a canary.
    """
    target = location.target
    if isinstance(target, FixedResponse):
        return
    if location.canaries:
        yield Directive("set", ("$passed_to", logged_target(target)))
        yield Directive("set", ("$passed_to_other", variable(f"other_{name}")))
    elif module != "proxy" or isinstance(target, ToName):
        yield Directive("set", ("$passed_to", target.key if isinstance(target, ToName) else address))


def choice_maps(name: str, location: Location, chosen: str) -> Iterator[Directive]:
    """Yield the maps of a location with canaries for what logs and TLS need of the choice.

    Args:
        name: Identifier of the location.
        location: The location.
        chosen: Variable with the chosen target.
    """
    texts = {written_target(known.target): logged_target(known.target) for known in location.canaries}
    yield _by_target(chosen, f"other_{name}", texts | _main_is_none(location))
    names = names_of(location)
    if names and _sends_names(location.policy):
        yield _by_target(chosen, f"sni_{name}", {written_target(known): known.host for known in names})


def _main_is_none(location: Location) -> dict[str, str]:
    return {} if isinstance(location.target, FixedResponse) else {written_target(location.target): ""}


def _by_target(chosen: str, made: str, texts: Mapping[str, str]) -> Directive:
    entries = [Entry("default", "", KeyKind.FIXED), *(Entry(key, text) for key, text in texts.items())]
    return Directive("map", (variable(chosen), f"${made}"), tuple(entries))


def _sends_names(policy: LocationPolicy) -> bool:
    """Whether a TLS server that is known by a name is sent it, so that it can choose its certificate."""
    return policy.protocol in {"HTTPS", "GRPCS", "AUTO_HTTP"} and policy.proxy_ssl is None


def resolving(name: str, location: Location, defaults: HttpDefaults, module: str) -> Iterator[Node]:
    """Yield what a location needs for targets that nginx resolves; with canaries, `name` identifies the location."""
    if not location.canaries and not isinstance(location.target, ToName):
        return
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
