"""The backend of one location: its rules for requests, in the order in which nginx applies them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulegen.backends.haproxy.answers import answer_lines
from rulegen.backends.haproxy.frontend import answer, put, put_text, redirect, variable
from rulegen.backends.haproxy.maps import expression_key, path_key, substitution
from rulegen.backends.haproxy.names import SHARES, map_file, mark
from rulegen.backends.haproxy.own_maps import OwnMaps, named_lines
from rulegen.backends.haproxy.process import retry_lines
from rulegen.backends.haproxy.rules.access import guard_lines, limit_lines, limit_tables, origin_lines
from rulegen.backends.haproxy.rules.clients import client_headers, client_lines
from rulegen.backends.haproxy.rules.copies import mirror_lines
from rulegen.backends.haproxy.rules.scripts import application, script_lines
from rulegen.backends.haproxy.served import body_limit
from rulegen.backends.haproxy.stock import BackendNames
from rulegen.backends.haproxy.texts import captures
from rulegen.backends.haproxy.upstream import ANY_ADDRESS, check_lines, resolving_lines, server_lines
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.haproxy.text import UnwritableError
from rulegen.languages.haproxy.tree import ConfigSection, is_set, log_format, matches, negated, sample, statement
from rulegen.model.ingress.ir import FixedResponse, MatchKind, ToName, ToUpstream, Upstream
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.haproxy.tree import ConfigLine, Word
    from rulegen.model.ingress.ir import (
        Canary,
        IngressModel,
        Location,
        LocationPolicy,
        Server,
        ServiceWithoutEndpoints,
        Target,
    )
    from rulegen.model.ingress.values.texts import Text

UNAVAILABLE = 503
_NOT_FOUND = FixedResponse(404)
_EMPTY = Upstream(name="", service=ObjectName("", ""), servers=())
_REQUEST = "http-request"
_MOST_DIGITS = "18"


@dataclass(slots=True)
class ConfigParts:
    """Parts of a configuration that locations add.

    Attributes:
        sections: Backends and tables, by kind and name.
        maps: Entries by path, in their order.
        passwords: Paths of password files of the model that are used.
        choice: Statements of the frontend that choose another backend.
        shares: The shares of canaries.
        canaries: The canaries of main backends, by backend.
        addresses: The names that backends resolve, by backend.
        auth_servers: The addresses of auth servers, by the digest of their upstream.
        names: The names of backends.
        owners: The Ingresses of each backend.
        by_rule: The names of backends of rules.
        values: The own maps of the backend that is being compiled.
        chosen: The backends of each upstream, each with the policy of its servers.
    """

    sections: dict[tuple[str, str], ConfigSection] = field(default_factory=dict)
    maps: dict[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    passwords: dict[str, None] = field(default_factory=dict)
    choice: list[ConfigLine] = field(default_factory=list)
    shares: list[tuple[str, str]] = field(default_factory=list)
    canaries: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    auth_servers: dict[str, str] = field(default_factory=dict)
    names: BackendNames = field(default_factory=BackendNames)
    owners: dict[str, dict[ObjectName, None]] = field(default_factory=dict)
    by_rule: dict[str, str] = field(default_factory=dict)
    values: OwnMaps = field(default_factory=OwnMaps)
    chosen: dict[str, dict[str, LocationPolicy]] = field(default_factory=dict)

    def include(self, other: ConfigParts) -> None:
        """Add all parts of another object."""
        self.sections.update({key: section for key, section in other.sections.items() if key not in self.sections})
        self.maps.update(other.maps)
        self.passwords.update(other.passwords)
        self.choice += other.choice
        self.shares += other.shares
        self.addresses.update(other.addresses)
        self.canaries.update(other.canaries)
        self.auth_servers.update(other.auth_servers)
        for upstream, policies in other.chosen.items():
            self.chosen.setdefault(upstream, {}).update(policies)
        for name, owners in other.owners.items():
            self.owners.setdefault(name, {}).update(owners)

    def add(self, section: ConfigSection) -> None:
        """Add a section, unless it is there."""
        self.sections.setdefault((section.kind, section.name), section)


def location_name(location: Location, server: Server) -> str:
    """Return the name of a location's backend: the same for all paths of one rule."""
    pattern = location.path if _is_expression(location) else ""
    policy = () if location.ingress else (location.policy,)
    return f"b{mark(server.host, location.ingress, location.rule, location.source, pattern, location.target, *policy)}"


def add_location(location: Location, server: Server, model: IngressModel, parts: ConfigParts) -> str:
    """Add the backend of a location, and what it needs beside it; return its name.

    Raises:
        UnwritableError: HAProxy cannot be given a value of it; nothing was added.
    """
    rule = _rule(location, server)
    if (known := parts.by_rule.get(rule)) is not None:
        return known
    own = ConfigParts(names=parts.names)
    canaries: list[Canary] = []
    if not isinstance(location.target, FixedResponse) and location.policy.redirect is None:
        canaries = list(location.canaries)
    marks = [mark(replace(canary, share=0.0)) for canary in canaries]
    name = _add_backend(location, location.target, server, model, own, marks)
    if name not in parts.owners:
        others = [_add_backend(location, canary.target, server, model, own, []) for canary in canaries]
        if any(canary.header_pattern for canary in canaries):
            for number, (other, canary) in enumerate(zip(others, canaries, strict=True)):
                own.shares.append((f"{name}.{number}", str(_of_10000(canary.share))))
                own.choice += _canary(name, number, other, canary)
        elif canaries:
            own.canaries[name] = " ".join(map(_canary_item, others, canaries))
    parts.include(own)
    parts.by_rule[rule] = name
    return name


def _rule(location: Location, server: Server) -> str:
    """Return the same text for all paths of one rule, whose backends have the same lines."""
    pattern = location.path if _is_expression(location) else ""
    policy = () if location.ingress else (location.policy,)
    return mark(server.host, location.ingress, location.rule, location.source, pattern, location.target, *policy)


def _add_backend(
    location: Location, target: Target, server: Server, model: IngressModel, parts: ConfigParts, marks: Sequence[str]
) -> str:
    """Add the backend of a target; return its name: the same for equal rules and the same upstream."""
    lines, values = _compiled(location, target, server, model, parts)
    upstream: tuple[object, ...] = ()
    if not isinstance(target, FixedResponse) and location.policy.redirect is None:
        upstream = (*target, *marks)
        if parts.names.is_new(lines):  # a host of this kind whose paths do not cover `/` answers 404 there
            _add_named(*_compiled(location, _NOT_FOUND, server, model, parts), parts)
    name = _add_named(lines, values, parts, *upstream)
    if isinstance(target, ToName) and upstream:
        parts.addresses[name] = target.host
    if isinstance(target, ToUpstream) and upstream:
        parts.chosen.setdefault(target.upstream, {})[name] = location.policy
    if location.ingress is not None:
        parts.owners.setdefault(name, {})[location.ingress] = None
    return name


def _compiled(
    location: Location, target: Target, server: Server, model: IngressModel, parts: ConfigParts
) -> tuple[tuple[ConfigLine, ...], OwnMaps]:
    """Return the lines of a backend, and the values that they read from its own maps."""
    parts.values = OwnMaps()
    return tuple(_lines(location, target, server, model, parts)), parts.values


def _add_named(lines: tuple[ConfigLine, ...], values: OwnMaps, parts: ConfigParts, *upstream: object) -> str:
    name = parts.names.name(lines, *upstream, *values.digest)
    parts.add(ConfigSection("backend", name, named_lines(lines, name)))
    parts.maps.update(values.named(name))
    return name


def add_closed(location: Location, parts: ConfigParts) -> str:
    """Add the backend of locations that cannot be served, which answers 503; return its name."""
    return _add_plain((answer(UNAVAILABLE),), parts, location.ingress)


def _add_plain(lines: tuple[ConfigLine, ...], parts: ConfigParts, owner: ObjectName | None = None) -> str:
    name = parts.names.name(lines)
    parts.add(ConfigSection("backend", name, lines))
    if owner is not None:
        parts.owners.setdefault(name, {})[owner] = None
    return name


def add_app_root(server: Server, parts: ConfigParts) -> str:
    """Add the backend that sends `/` of a host to its `app-root`; return its name."""
    target = log_format(variable("scheme"), "://", variable("this_host"), server.app_root)
    return _add_plain((redirect(302, target),), parts)


def add_www(server: Server, model: IngressModel, parts: ConfigParts) -> str:
    """Add the backend that sends all requests for another name of a host to it; return its name."""
    settings, host = model.defaults.settings, model.defaults.host
    lines: list[ConfigLine] = []
    for scheme, port, usual in (("http", host.http_port, 80), ("https", host.https_port, 443)):
        name = f"{server.host}:{port}" if port != usual else server.host
        target = log_format(variable("scheme"), f"://{name}", variable("redirect_uri"))
        when = matches(variable("own_scheme"), "str", scheme)
        lines.append(redirect(settings.http_redirect_code, target, when=when))
    return _add_plain(tuple(lines), parts)


def _is_expression(location: Location) -> bool:
    return location.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED}


def _lines(
    location: Location, target: Target, server: Server, model: IngressModel, parts: ConfigParts
) -> Iterator[ConfigLine]:
    policy, settings = location.policy, model.defaults.settings
    if server.client_auth is not None:
        yield from client_lines(server.client_auth)
    if policy.redirect is not None:
        code, text = policy.redirect
        yield from _captures(location, parts, text)
        if policy.cors is not None:
            yield from origin_lines(policy.cors, parts.values)
        yield from _sent_away(code, text, parts, is_relative=policy.relative_redirects)
        return
    if isinstance(target, FixedResponse) and (location.ingress is None or policy.is_closed):
        yield answer(target.status)
        return
    yield from _captures(location, parts, policy.upstream_vhost, policy.forwarded_prefix)
    yield from _to_https(location, server, model)
    if policy.cors is not None:
        yield from origin_lines(policy.cors, parts.values)
    yield from limit_lines(location.ingress, policy.limits, settings, parts.values)
    for table in limit_tables(location.ingress, policy.limits):
        parts.add(table)
    yield from _body_size(policy, body_limit(policy, settings))
    if policy.basic_auth is not None:
        parts.passwords[policy.basic_auth.file] = None
    yield from client_headers(server.client_auth)
    yield from guard_lines(location, model, parts.maps, parts.values)
    for asked in (policy.external_auth, policy.mirror):
        if asked is not None and asked.target:
            parts.auth_servers[mark(asked.target)] = ",".join(model.upstreams[asked.target].servers) or "-"
    for number, (name, value) in enumerate(policy.headers):
        yield statement("http-after-response", "set-header", name, parts.values.text(f"header-{number}", value))
    if isinstance(target, FixedResponse) and target.status != UNAVAILABLE:
        yield answer(target.status)
        return
    # A backend without servers answers 503. Its rules are those of one with servers, which it gets without a reload.
    upstream = model.upstreams[target.upstream] if isinstance(target, ToUpstream) else _EMPTY
    yield from _rewrite(location, parts)
    yield from _headers(policy, parts, location.ingress)
    yield from answer_lines(policy)
    if policy.protocol == "FCGI" and (isinstance(target, ToName) or upstream.servers):
        parts.add(application(policy))
        yield from script_lines(policy)
    if policy.mirror is not None:
        yield from mirror_lines(policy.mirror, model)
    yield from _timing(policy, model, parts.values)
    yield from check_lines(policy.servers)
    if isinstance(target, ToName):
        yield from resolving_lines(target, model)
        upstream = replace(upstream, servers=(f"{ANY_ADDRESS}:{target.port}",))
    yield from server_lines(upstream, policy, settings)


def _sent_away(code: int, text: Text, parts: ConfigParts, *, is_relative: bool) -> Iterator[ConfigLine]:
    """Yield a redirect; a relative one chooses no host, whatever its variables and the path of the rule are."""
    if not (isinstance(text.parts[0], str) and text.parts[0].startswith("/")):
        yield redirect(code, parts.values.written("redirect", text))
    elif not is_relative:
        rest = parts.values.written("redirect", text).parts
        yield redirect(code, log_format(variable("own_scheme"), "://", variable("host"), *rest))
    else:
        yield from _with_one_slash("relative", text, parts)
        yield redirect(code, log_format(variable("relative")))


def _with_one_slash(name: str, text: Text, parts: ConfigParts) -> Iterator[ConfigLine]:
    """Yield what sets a variable to a text, with one of the slashes that it begins with."""
    yield put_text(name, parts.values.written(name, text.with_one_slash()))
    file = map_file("slashes")
    parts.maps[file] = [(r"^[/\\][/\\]+(.*)$", r"/\1")]
    yield put(name, variable(name).then("map_regm", file))


def _captures(location: Location, parts: ConfigParts, *texts: Text) -> Iterator[ConfigLine]:
    """Yield what keeps the captures that texts have; a path with control characters would end a header."""
    numbers = captures(*texts)
    if not numbers or not _is_expression(location):
        return
    yield answer(400, when=is_set(variable("has_control")))
    for number in numbers:
        key = expression_key(location.path, ignores_case=location.kind is MatchKind.REGEX)
        path = parts.values.file(f"capture-{chr(ord('a') + number)}", [(key, f"\\{number}")])
        yield put(f"capture{number}", variable("path").then("map_regm", path))


def _to_https(location: Location, server: Server, model: IngressModel) -> Iterator[ConfigLine]:
    policy, settings = location.policy, model.defaults.settings
    exempt = location.source.startswith(settings.no_tls_redirect_locations)
    if policy.redirects_to_https(has_tls=server.has_tls and bool(server.host)) and not exempt:
        path = variable("request_uri" if policy.preserve_trailing_slash else "redirect_uri")
        named = settings.use_port_in_redirects if policy.ports_in_redirects is None else policy.ports_in_redirects
        port = f":{model.defaults.host.https_port}" if named else ""
        target = log_format("https://", variable("redirect_host"), port, path)
        yield redirect(settings.http_redirect_code, target, when=matches(variable("scheme"), "str", "http"))


def _body_size(policy: LocationPolicy, most: int) -> Iterator[ConfigLine]:
    """Yield the limit on bodies; one whose length is not known beforehand is rejected, since HAProxy does not count."""
    if not most or policy.protocol.startswith("GRPC"):
        return
    length = sample("req.fhdr", "content-length")
    yield answer(413, when=("{", length, "-m", "int", "gt", str(most), "}"))
    yield answer(413, when=("{", length, "-m", "len", "gt", _MOST_DIGITS, "}"))  # HAProxy compares numbers of 63 bits
    yield answer(411, when=is_set(sample("req.fhdr", "transfer-encoding")))
    unknown = negated(is_set(sample("req.fhdr", "content-length")))
    over_http2 = (*matches(sample("req.ver"), "str", "2.0"), *unknown)
    follows = ("!{", sample("internal.htx.has_eom"), "}")
    is_tunnel = is_set(sample("req.fhdr", "upgrade"))  # of an extended CONNECT only: HTTP/2 has no such header
    yield answer(411, when=(*over_http2, *follows, *negated(is_tunnel)))
    yield answer(413, when=(*over_http2, "{", sample("req.body_size"), "gt", str(most), "}"))


def _rewrite(location: Location, parts: ConfigParts) -> Iterator[ConfigLine]:
    target = location.policy.rewrite_target
    if not target:
        return
    pattern = location.path if location.kind is MatchKind.REGEX else "^/"
    path, mark_of_query, query = target.partition("?")
    for name, text in (("rewritten", path), ("rewritten_query", query)):
        if not text:
            continue
        entries = [(expression_key(pattern, ignores_case=True), substitution(text))]
        file = parts.values.file(name.replace("_", "-"), entries)
        yield put(name, variable("path").then("map_regm", file))
    if mark_of_query and not path:
        raise UnwritableError("a target of a rewrite without a path cannot be written for HAProxy")
    yield statement(_REQUEST, "lua.rulegen_rewrite")
    yield answer(500, when=negated(is_set(variable("uri"))))
    yield statement(_REQUEST, "set-uri", log_format(variable("uri")))


def _headers(policy: LocationPolicy, parts: ConfigParts, ingress: ObjectName | None) -> Iterator[ConfigLine]:
    if policy.forwarded_prefix:
        yield from _with_one_slash("prefix", policy.forwarded_prefix, parts)
        yield statement(_REQUEST, "set-header", "X-Forwarded-Prefix", log_format(variable("prefix")))
    if (absent := policy.stands_in_for) is not None:
        yield from _stands_in(absent, ingress)
    for name in policy.unproven_headers:
        yield statement(_REQUEST, "del-header", name)
    if policy.upstream_vhost:
        yield statement(_REQUEST, "set-header", "Host", parts.values.written("vhost", policy.upstream_vhost))


def _stands_in(absent: ServiceWithoutEndpoints, ingress: ObjectName | None) -> Iterator[ConfigLine]:
    """Yield the headers that name the Service for which a default backend answers."""
    accept = sample("req.fhdr", "accept")
    texts = {
        "X-Code": log_format(str(UNAVAILABLE)),
        "X-Format": log_format(accept),
        "X-Original-URI": log_format(variable("request_uri")),
        "X-Namespace": log_format(ingress.namespace if ingress else ""),
        "X-Ingress-Name": log_format(ingress.name if ingress else ""),
        "X-Service-Name": log_format(absent.name),
        "X-Service-Port": log_format(absent.port),
    }
    for name, text in texts.items():
        yield statement(_REQUEST, "del-header", name)
        if text.parts:
            when = is_set(accept) if name == "X-Format" else ()
            yield statement(_REQUEST, "set-header", name, text, when=when)


def _timing(policy: LocationPolicy, model: IngressModel, values: OwnMaps) -> Iterator[ConfigLine]:
    proxying, settings = policy.proxying, model.defaults.settings
    if proxying.connect_timeout_s is not None:
        yield statement("timeout", "connect", f"{proxying.connect_timeout_s or 1}s")
    if proxying.read_timeout_s is not None:
        limit = values.number("read", 1000 * (proxying.read_timeout_s or 1))
        yield statement(_REQUEST, "set-timeout", "server", limit)
        yield statement(_REQUEST, "set-timeout", "tunnel", limit)
    if policy.servers.retry_on:
        tries = settings.proxy_next_upstream_tries if proxying.retry_tries is None else proxying.retry_tries
        yield statement("retries", str(min(max(tries - 1, 0), 100) if tries else 10))
        yield statement("option", "redispatch", "1")
        yield statement("retry-on", *policy.servers.retry_on)
    elif proxying.retry_on is not None or proxying.retry_tries is not None:
        causes = settings.proxy_next_upstream if proxying.retry_on is None else proxying.retry_on
        tries = settings.proxy_next_upstream_tries if proxying.retry_tries is None else proxying.retry_tries
        yield from retry_lines(causes, tries)
    if not settings.retry_non_idempotent:
        unsafe = matches(sample("method"), "str", "POST", "PATCH", "LOCK")
        yield statement(_REQUEST, "disable-l7-retry", when=unsafe)


def _of_10000(share: float) -> int:
    """Return how many of 10,000 requests a canary gets; a share above 0 and below 100 is neither none nor all."""
    if share <= 0:
        return 0
    return 10_000 if share >= 100 else min(max(round(share * 100), 1), 9_999)


def _canary_item(other: str, canary: Canary) -> str:
    """Return a canary as the Lua program reads it; texts of its Ingress are escaped."""
    mode = "unreadable" if canary.is_header_unreadable else "value" if canary.header_value else "words"
    texts = (path_key(text) for text in (canary.header, canary.header_value, canary.cookie))
    return ";".join((other, str(_of_10000(canary.share)), mode, *texts))


def _canary(name: str, number: int, other: str, canary: Canary) -> Iterator[ConfigLine]:
    """Yield the statements of the frontend that send a share of a location's requests to a canary's backend."""
    here = matches(variable("backend"), "str", name)
    open_ = (*here, *negated(is_set(variable("take"))))

    def decide(value: str, *when: Word) -> ConfigLine:
        return put_text("take", log_format(value), when=(*open_, *when))

    yield statement(_REQUEST, "unset-var(txn.take)", when=here)
    if canary.header:
        header = sample("req.fhdr", canary.header)
        if canary.is_header_unreadable:
            yield decide("no", *is_set(header))
        elif canary.header_value:
            yield decide("yes", *matches(header, "str", canary.header_value))
        elif canary.header_pattern:
            pattern = expression_key(canary.header_pattern, ignores_case=False)
            yield decide("yes", *matches(header, "reg", pattern))
        else:
            yield decide("yes", *matches(header, "str", "always"))
            yield decide("no", *matches(header, "str", "never"))
    if canary.cookie:
        cookies = sample("req.fhdr", "cookie")
        for answer_, value in (("yes", "always"), ("no", "never")):
            yield decide(answer_, *matches(cookies, "reg", _cookie_key(canary.cookie, value)))
    share = sample("str", f"{name}.{number}").then("map_str_int", SHARES, "0")
    yield put("share", share, when=here)
    yield decide("yes", "{", sample("rand", "10000").then("sub", "txn.share"), "lt", "0", "}")
    chosen = (*here, *matches(variable("take"), "str", "yes"))
    yield put_text("backend", log_format(other), when=chosen)


def _cookie_key(cookie: str, value: str) -> str:
    """Return the expression for cookies among which one has a value; its name ignores case, as with nginx."""
    return rf"(?:^|[;,])\x20*(?i:{regex.escape(cookie)})\x20*=\x20*{value}(?:;|$)"
