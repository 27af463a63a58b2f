"""Location blocks: how nginx serves the requests for some paths of a host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.auth import (
    auth_answer,
    auth_location,
    auth_maps,
    auth_path,
)
from rulegen.backends.nginx.locations.canary import (
    Cookie,
    address,
    canary_maps,
    choice,
    chosen_cookie,
    chosen_side,
)
from rulegen.backends.nginx.locations.cors import cors_directives, origins_map
from rulegen.backends.nginx.locations.errors import UNAVAILABLE, error_headers, error_location, error_name
from rulegen.backends.nginx.locations.expressions import bounded, matching, rewritten
from rulegen.backends.nginx.locations.headers import (
    CORS_HEADERS,
    answer_headers,
    fastcgi_parameters,
    grpc_headers,
    hidden_headers,
    is_server,
    proxy_headers,
    server_header,
)
from rulegen.backends.nginx.locations.limits import limit_directives, limit_mark
from rulegen.backends.nginx.locations.mirror import mirror_directives, mirror_location
from rulegen.backends.nginx.locations.proxying import SCHEMES, backend_tls, module_of, tuning
from rulegen.backends.nginx.locations.signin import signin_location, signin_name
from rulegen.backends.nginx.locations.targets import (
    choice_maps,
    logged,
    resolving,
    written_target,
)
from rulegen.backends.nginx.names import mark, modules_of
from rulegen.backends.nginx.texts import captures_of, written
from rulegen.backends.nginx.upstream import side, sticky_name, sticky_set
from rulegen.languages.nginx.facts import HEADERS_MORE
from rulegen.languages.nginx.grammar import NO_FILE
from rulegen.languages.nginx.tree import Directive, template, variable
from rulegen.model.ingress.ir import FixedResponse, MatchKind, ToName, ToUpstream
from rulegen.model.ingress.values.readers import spell_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import Location, Server, Target, Upstream
    from rulegen.model.ingress.values.texts import Text
    from rulegen.net import Network

_LITERAL: Final = frozenset({MatchKind.PREFIX, MatchKind.EXACT})
"""Kinds whose blocks do not depend on the path that is compared."""
_COOKIE_PATH: Final = re.compile(r"/[A-Za-z0-9._~!&'()*+=:@%/-]+\Z")


class LocationText:
    """The directives of one location, and the maps and internal locations that it needs."""

    def __init__(
        self, location: Location, server: Server, defaults: HttpDefaults, sticky: Mapping[str, Upstream]
    ) -> None:
        """Take the location.

        Args:
            location: The location.
            server: Its server.
            defaults: Defaults of all hosts.
            sticky: The host's own upstreams with session affinity, by name.
        """
        self._location, self._server, self._defaults = location, server, defaults
        self._settings = defaults.settings
        target = location.target
        self._sticky = sticky.get(target.upstream) if isinstance(target, ToUpstream) else None
        self._cookie: Cookie | None = None
        if self._sticky is not None and self._sticky.sticky is not None and location.canaries:
            names = [written_target(canary.target) for canary in location.canaries]
            others = {name: sticky[name] for name in names if name in sticky}
            self._cookie = Cookie(self._sticky, self._sticky.sticky, others)
        self._policy = location.policy
        self.block: tuple[Node, ...] = ()

    # -- maps and internal locations -----------------------------------------------------------------------------------

    def maps(self) -> Iterator[Node]:
        """Yield the maps that the location needs in the block `http`."""
        location, policy = self._location, self._policy
        if location.canaries and not isinstance(location.target, FixedResponse):
            main, name = location.target, self._mark()
            yield from canary_maps(name, written_target(main), location.canaries, self._cookie)
            yield from choice_maps(name, location, choice(name))
        if policy.external_auth is not None:
            yield from auth_maps(policy.external_auth)
        if policy.cors is not None and not policy.cors.any_origin:
            yield origins_map(f"origin_{self._cors_mark()}", policy.cors)

    def siblings(self) -> Iterator[Directive]:
        """Yield the internal locations that this location refers to."""
        policy = self._policy
        if policy.external_auth is not None and not self._answers_at_once:
            yield auth_location(policy.external_auth, self._server, self._defaults, self._location)
            if policy.external_auth.signin:
                yield signin_location(policy.external_auth, self._server, self._settings)
        if policy.mirror is not None and self._is_mirrored:
            yield mirror_location(policy.mirror, self._verified_headers(), self._defaults)
        if policy.errors is not None:
            for code in self._replaced():
                yield error_location(policy.errors, self._location.ingress, code, self._defaults)

    # -- the location itself -------------------------------------------------------------------------------------------

    def directive(self, previous: LocationText | None = None) -> Directive:
        """Return the location block.

        Args:
            previous: The location before it: a path often makes two, whose blocks are equal.
        """
        is_like = previous is not None and self._differs_only_in_path(previous)
        self.block = previous.block if previous is not None and is_like else tuple(self._block())
        return Directive("location", matching(self._location), self.block)

    def _differs_only_in_path(self, other: LocationText) -> bool:
        mine, others = self._location, other._location
        if self._policy.external_auth is not None:  # kept answers of an auth server belong to one location
            return False
        return mine.kind in _LITERAL and others.kind in _LITERAL and mine[2:] == others[2:]

    def _block(self) -> Iterator[Node]:
        location, policy = self._location, self._policy
        if len(self._server.ingresses) > 1 and location.ingress is not None and self._settings.logs_ingress:
            yield Directive("set", ("$ingress", str(location.ingress)))
        if not (policy.access_log and self._is_logged):
            yield Directive("access_log", ("off",))
        if self._names_ports != self._settings.use_port_in_redirects:
            yield Directive("port_in_redirect", ("on" if self._names_ports else "off",))
        if isinstance(location.target, FixedResponse) and policy.redirect is None:
            yield from self._response(location.target)
            return
        if policy.redirect is not None:
            # As in ingress-nginx, such a redirect does not go to HTTPS first: its target is already final.
            yield from self._captures(policy.redirect[1])
            if policy.cors is not None:
                yield from cors_directives(f"origin_{self._cors_mark()}", policy.cors)
            if policy.relative_redirects:
                yield Directive("absolute_redirect", ("off",))
            yield from self._added_headers()
            yield from self._sent_away(*policy.redirect)
            return
        yield from self._captures(policy.upstream_vhost, policy.forwarded_prefix)
        yield from self._to_https()
        yield from self._variables()
        yield from self._checks()
        yield from self._limits()
        yield from self._sizes()
        yield from self._headers()
        if policy.mirror is not None and self._is_mirrored:
            yield from mirror_directives(policy.mirror, self._verified_headers())
        yield from self._backend()

    def _sent_away(self, code: int, text: Text) -> Iterator[Node]:
        """Yield a redirect; a relative one chooses no host, whatever its variables and the path of the rule are."""
        text = text.with_one_slash() if self._policy.relative_redirects else text
        where = written(text)
        if self._policy.relative_redirects and text.literal is None and text.parts[0] == "/":
            yield _set("relative_to", where)
            where = variable("plain_relative")
        yield Directive("return", (str(code), where))

    @property
    def _is_mirrored(self) -> bool:
        """Whether requests are passed on, so that they can be sent to a second server as well."""
        return self._policy.redirect is None and not isinstance(self._location.target, FixedResponse)

    @property
    def _is_logged(self) -> bool:
        """Whether requests to this location are logged. The default backend has a setting of its own."""
        is_nobodys = self._location.ingress is None and not self._server.host
        return not is_nobodys or self._settings.enable_access_log_for_default_backend

    def _captures(self, *texts: Text) -> Iterator[Node]:
        is_expression = self._location.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED}
        return captures_of(texts, is_expression=is_expression)

    @property
    def _answers_at_once(self) -> bool:
        """Whether nginx responds itself, without redirects, checks and limits of an Ingress before."""
        location = self._location
        return isinstance(location.target, FixedResponse) and (location.ingress is None or self._policy.is_closed)

    def _response(self, response: FixedResponse) -> Iterator[Node]:
        """Yield a fixed response, after the redirects, checks and limits of the Ingress.

        `return` would respond before authentication; `try_files` without existing files responds after it.
        """
        yield from self._error_pages()
        before: list[Node] = []
        if not self._answers_at_once:
            yield from self._sizes()
            yield from self._added_headers()
            before = [*self._to_https(), *self._cross_origin(), *self._checks(), *self._limits()]
        yield from before
        if before:
            yield Directive("try_files", (NO_FILE, f"={response.status}"))
        else:
            yield Directive("return", (str(response.status),))

    def _to_https(self) -> Iterator[Node]:
        """Yield the redirect to HTTPS."""
        policy, settings = self._policy, self._settings
        exempt = self._location.source.startswith(settings.no_tls_redirect_locations)
        # As in ingress-nginx, requests of a rule without host are never redirected to HTTPS.
        has_tls = self._server.has_tls and bool(self._server.host)
        if policy.redirects_to_https(has_tls=has_tls) and not exempt:
            path = "request_uri" if policy.preserve_trailing_slash else "redirect_uri"
            port = f":{self._defaults.host.https_port}" if self._names_ports else ""
            target = template(f"https://$redirect_host{port}${path}")
            answer = Directive("return", (str(settings.http_redirect_code), target))
            yield _if(("$pass_access_scheme", "=", "http"), answer)

    @property
    def _names_ports(self) -> bool:
        """Whether redirects contain the port of nginx."""
        own = self._policy.ports_in_redirects
        return self._settings.use_port_in_redirects if own is None else own

    def _variables(self) -> Iterator[Node]:
        """Yield what differs from the defaults, and what nginx does before it checks who the client is."""
        policy = self._policy
        yield from self._cross_origin()
        if policy.upstream_vhost:
            yield _set("vhost", written(policy.upstream_vhost))
        if policy.forwarded_prefix:
            yield _set("forwarded_prefix", written(policy.forwarded_prefix))
        if policy.connection_header:
            yield _set("connection_proxy_header", policy.connection_header)
        if policy.basic_auth is not None:
            yield _set("strip_authorization", "1")
        if self._sticky is not None:
            yield _set("sticky_path", self._cookie_path())
        sticky = self._sticky.sticky if self._sticky else None
        if self._sticky is not None and sticky is not None and not sticky.is_persistent:
            yield _set("sticky_side", variable(chosen_side(self._mark())) if self._cookie else side(self._sticky))
            yield _set("sticky_cookie", variable(sticky_set(self._sticky, sticky)))
        if policy.rewrite_target:
            pattern = self._location.path if self._location.kind is MatchKind.REGEX else "^/"
            yield Directive("rewrite", (bounded(f"(?i){pattern}"), rewritten(policy.rewrite_target), "break"))

    def _cross_origin(self) -> Iterator[Node]:
        if self._policy.cors is not None:
            yield from cors_directives(f"origin_{self._cors_mark()}", self._policy.cors)

    def _limits(self) -> Iterator[Node]:
        if self._policy.limits.is_any:
            yield from limit_directives(self._limit_mark(), self._policy.limits)

    def _checks(self) -> Iterator[Node]:
        """Yield the checks that decide whether the client may pass."""
        policy, settings = self._policy, self._settings
        if policy.satisfy_any:
            if settings.block_cidrs:  # a password does not let in whom all Ingresses keep out
                yield _if(("$blocked_address",), Directive("return", ("403",)))
            yield Directive("satisfy", ("any",))
        deny = policy.deny or settings.denylist_source_range
        allow = policy.allow or settings.whitelist_source_range
        # nginx does not inherit deny rules into a location that has such rules of its own.
        deny = (*settings.block_cidrs, *deny) if deny or allow else deny
        yield from (Directive("deny", (spell_network(network),)) for network in deny)
        yield from (Directive("allow", (spell_network(network),)) for network in allow)
        if allow:
            yield Directive("deny", ("all",))
        if policy.basic_auth is not None:
            yield Directive("auth_basic", (_quotable(policy.basic_auth.realm) or "Authentication Required",))
            yield Directive("auth_basic_user_file", (policy.basic_auth.file,))
        auth = policy.external_auth
        if auth is not None:
            yield Directive("auth_request", (auth_path(auth, self._server.host, self._settings, self._location),))
            yield from auth_answer(auth)
            if auth.signin:
                yield Directive("error_page", ("401", "=", signin_name(auth, self._server.host)))

    def _sizes(self) -> Iterator[Node]:
        policy = self._policy
        if policy.body_size is not None:
            yield Directive("client_max_body_size", (spell_size(policy.body_size),))
        if policy.body_buffer_size is not None:
            yield Directive("client_body_buffer_size", (spell_size(policy.body_buffer_size),))
        if policy.rewrite_log:
            yield Directive("rewrite_log", ("on",))

    def _verified_headers(self) -> list[tuple[str, Word]]:
        """Return the headers with verified facts about the client; they replace those that the client sends."""
        auth, client = self._policy.external_auth, self._server.client_auth
        extra: list[tuple[str, Word]] = [(name, "") for name in self._policy.unproven_headers]
        if auth is not None:
            extra += [(name, variable(_auth_variable(name))) for name in auth.response_headers]
        if client is not None:
            extra += [
                ("ssl-client-verify", variable("ssl_client_verify")),
                ("ssl-client-subject-dn", variable("ssl_client_s_dn")),
                ("ssl-client-issuer-dn", variable("ssl_client_i_dn")),
                ("ssl-client-cert", variable("ssl_client_escaped_cert") if client.pass_certificate else ""),
            ]
        if (absent := self._policy.stands_in_for) is not None:
            extra += error_headers(UNAVAILABLE, self._location.ingress, *absent)
        return extra

    def _headers(self) -> Iterator[Node]:
        """Yield the lists of headers that differ here from the lists of the block `http`."""
        policy, settings = self._policy, self._settings
        extra = self._verified_headers()
        if extra and policy.protocol != "FCGI":
            make = grpc_headers if policy.protocol.startswith("GRPC") else proxy_headers
            yield from make(settings, extra)
        yield from self._added_headers()
        hidden = [name for name, _ in policy.headers]
        if policy.cors is not None:
            hidden += CORS_HEADERS
        if hidden:
            yield from hidden_headers(settings, hidden, (module_of(policy.protocol),))

    def _added_headers(self) -> Iterator[Node]:
        added: list[tuple[str, Word]] = list(self._policy.headers)
        if self._sticky is not None and self._names_server and self._policy.redirect is None:
            # Not with `set`: which server has responded is known only at the end.
            name = chosen_cookie(self._mark()) if self._cookie else f"{sticky_name(self._sticky)}_set"
            added.append(("Set-Cookie", variable(name)))
        if added:
            yield from answer_headers(self._settings, added)
            if HEADERS_MORE in modules_of(self._defaults.host.traits) and any(map(is_server, self._policy.headers)):
                yield from server_header(self._settings, self._policy.headers)

    def _backend(self) -> Iterator[Node]:
        policy, target = self._policy, self._location.target
        module = module_of(policy.protocol)
        yield from tuning(policy, module, self._settings)
        if policy.errors is not None and policy.errors.of_backends:
            yield Directive(f"{module}_intercept_errors", ("on",))
        yield from self._error_pages()
        if policy.proxy_ssl is not None and module != "fastcgi":
            yield from backend_tls(policy.proxy_ssl, module)
        name = self._mark() if self._location.canaries else ""
        yield from resolving(name, self._location, self._defaults, module)
        if self._settings.logs_access:
            yield from logged(name, self._location, module, self._address(target))
        if module == "fastcgi":
            if policy.script_index:
                yield Directive("fastcgi_index", (policy.script_index,))
            extra = [(f"HTTP_{name.upper().replace('-', '_')}", value) for name, value in self._verified_headers()]
            extra += [(name, written(text)) for name, text in policy.scripts.items()]
            yield from fastcgi_parameters(extra) if extra else ()
            yield Directive("fastcgi_pass", (self._address(target),))
            return
        scheme = SCHEMES[policy.protocol]
        yield Directive(f"{module}_pass", (self._url(scheme, target),))

    def _replaced(self) -> Iterator[int]:
        """Yield the statuses whose responses are replaced by error pages, as far as they can occur here."""
        target = self._location.target
        for code in self._policy.errors.codes if self._policy.errors is not None else ():
            if not isinstance(target, FixedResponse) or target.status == code:
                yield code

    def _error_pages(self) -> Iterator[Node]:
        errors = self._policy.errors
        if errors is not None:
            for code in self._replaced():
                yield Directive("error_page", (str(code), "=", error_name(errors, self._location.ingress, code)))

    def _address(self, target: Target) -> Word:
        if self._location.canaries:
            return variable(address(self._mark(), self._cookie))
        if isinstance(target, ToName):
            return variable("external")
        if self._sticky is not None and self._names_server:
            return variable(f"{sticky_name(self._sticky)}_to")
        return target.upstream if isinstance(target, ToUpstream) else ""

    def _url(self, scheme: str, target: Target) -> Word:
        address = self._address(target)
        if isinstance(address, str) and "$" not in scheme:
            return f"{scheme}://{address}"
        return template(f"{scheme}://%s", address)

    def _cookie_path(self) -> str:
        """Return the cookie's path; `/` if the location's path cannot be written in a cookie."""
        path = self._location.source.rstrip("/")
        return path if self._location.kind is not MatchKind.REGEX and _COOKIE_PATH.match(path) else "/"

    @property
    def _names_server(self) -> bool:
        """Whether the cookie names a server."""
        sticky = self._sticky.sticky if self._sticky else None
        return sticky is not None and sticky.is_persistent

    # -- names ---------------------------------------------------------------------------------------------------------

    def _mark(self) -> str:
        return mark(self._server.host, self._location.ingress, self._location.rule)

    def _cors_mark(self) -> str:
        cors = self._policy.cors
        return mark(*(cors.origins if cors else ()))

    def _limit_mark(self) -> str:
        return limit_mark(self._location.ingress, self._policy.limits)


def _auth_variable(name: str) -> str:
    return f"auth_header_{name.lower().replace('-', '_')}"


def _quotable(realm: str) -> str:
    """Return a realm with escaped quotes (RFC 9110, 5.6.4), because nginx copies it into a quoted string."""
    return realm.replace("\\", "\\\\").replace('"', '\\"')


def _set(name: str, value: Word) -> Directive:
    return Directive("set", (f"${name}", value))


def _if(condition: tuple[str, ...], inner: Directive) -> Directive:
    """Return an `if` block; the first word of the condition is a variable with its dollar sign."""
    return Directive("if", ("(", *condition, ")"), (inner,))


def spell_network(network: Network) -> str:
    """Return a network as an argument of `allow` and `deny`."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
