"""Access control: lists of addresses, passwords, limits for each client, and CORS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.haproxy.frontend import answer, in_map, put, put_text, variable
from rulegen.backends.haproxy.maps import expression_key, network_entries
from rulegen.backends.haproxy.names import map_file, mark
from rulegen.backends.haproxy.rules.auth_server import auth_lines
from rulegen.languages.haproxy.tree import ConfigSection, is_set, log_format, matches, negated, sample, statement
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

    from rulegen.backends.haproxy.own_maps import OwnMaps
    from rulegen.languages.haproxy.tree import ConfigLine, Word
    from rulegen.model.ingress.ir import BasicAuth, Cors, IngressModel, Limits, Location
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.net import Network


def within(kind: str, networks: Sequence[Network], values: OwnMaps) -> tuple[Word, ...]:
    """Return the condition that a client is in one of these networks, which are in a map of the backend."""
    return in_map(values.file(f"networks-{kind}", network_entries(networks)))


def guard_lines(
    location: Location,
    model: IngressModel,
    maps: MutableMapping[str, Sequence[tuple[str, str]]],
    values: OwnMaps,
) -> Iterator[ConfigLine]:
    """Yield the lines that check addresses, an auth server, then passwords; with `satisfy: any`, one of them is enough.

    Raises:
        UnwritableError: HAProxy cannot ask the auth server.
    """
    policy, settings = location.policy, model.defaults.settings
    deny = policy.deny or settings.denylist_source_range
    allow = policy.allow or settings.whitelist_source_range
    if settings.block_cidrs:
        path = map_file("networks", *settings.block_cidrs)
        maps[path] = network_entries(settings.block_cidrs)
        yield answer(403, when=in_map(path))
    auth, server = policy.basic_auth, policy.external_auth
    is_any = policy.satisfy_any and (auth is not None or server is not None)
    if is_any:
        if allow:
            free = within("allow", allow, values)
            free = (*negated(within("deny", deny, values)), *free) if deny else free
            yield put_text("is_known", log_format("1"), when=free)
    else:
        if deny:
            yield answer(403, when=within("deny", deny, values))
        if allow:
            yield answer(403, when=negated(within("allow", allow, values)))
    if server is not None:
        yield from auth_lines(
            server, model, f"{location.ingress} {location.rule}", satisfies=is_any, is_last=auth is None or not is_any
        )
    if auth is not None:
        yield from _password(auth)


def users_name(path: str) -> str:
    """Return the name of the list of users of a password file."""
    return f"u{mark(path)}"


def passwords_file(path: str) -> str:
    """Return the path of the map of a password file: the hashes that Lua checks, by user."""
    return f"secrets/{mark(path)}.passwords"


def _password(auth: BasicAuth) -> Iterator[ConfigLine]:
    unknown = negated(is_set(variable("is_known")))
    yield put("stored", sample("http_auth_user").then("map_str", passwords_file(auth.file)), when=unknown)
    yield statement("http-request", "lua.rulegen_password", when=is_set(variable("stored")))
    by_crypt = ("{", sample("http_auth", users_name(auth.file)), "}")
    yield put_text("is_known", log_format("1"), when=(*unknown, *by_crypt))
    realm = (auth.realm or "Authentication Required").replace("\\", "\\\\").replace('"', '\\"')
    yield statement("http-request", "auth", "realm", realm, when=unknown)
    yield statement("http-request", "del-header", "Authorization")


def limit_name(ingress: object, limits: Limits, unit: str) -> str:
    """Return the name of the table that counts the clients of an Ingress, on all its hosts together."""
    return f"t{unit}{mark(ingress, limits)}"


def limit_tables(ingress: object, limits: Limits) -> Iterator[ConfigSection]:
    """Yield the tables that count the clients of an Ingress."""
    for unit, rate, period_s in (("s", limits.rps, 1), ("m", limits.rpm, 60)):
        if rate:
            span_ms = max((rate * limits.burst_multiplier + 1) * period_s * 1000 // rate, 1)
            store = f"gpc0,gpc0_rate({span_ms})"
            line = statement("stick-table", "type", "ipv6", "size", "100k", "expire", f"{2 * span_ms}", "store", store)
            yield ConfigSection("backend", limit_name(ingress, limits, unit), (line,))
    if limits.connections:
        line = statement("stick-table", "type", "ipv6", "size", "100k", "expire", "60s", "store", "conn_cur")
        yield ConfigSection("backend", limit_name(ingress, limits, "c"), (line,))


def limit_lines(ingress: object, limits: Limits, settings: Settings, values: OwnMaps) -> Iterator[ConfigLine]:
    """Yield the lines that count clients and reject those above a limit of requests or connections."""
    counted: tuple[Word, ...] = negated(within("exempt", limits.exempt, values)) if limits.exempt else ()
    number = 0
    for unit, rate in (("s", limits.rps), ("m", limits.rpm)):
        if rate:
            table = limit_name(ingress, limits, unit)
            yield statement("http-request", f"track-sc{number}", sample("src"), "table", table, when=counted)
            full = ("{", sample(f"sc{number}_gpc0_rate"), "gt", str(rate * limits.burst_multiplier), "}")
            yield answer(settings.limit_req_status_code, when=full)
            yield statement("http-request", f"sc-inc-gpc0({number})", when=counted)
            number += 1
    if limits.connections:
        table = limit_name(ingress, limits, "c")
        yield statement("http-request", f"track-sc{number}", sample("src"), "table", table, when=counted)
        full = ("{", sample(f"sc{number}_conn_cur"), "gt", str(limits.connections), "}")
        yield answer(settings.limit_conn_status_code, when=full)


def _origin_key(allowed: str) -> str:
    pattern = regex.escape(allowed).replace(r"\*\.", r"[A-Za-z0-9-]+\.", 1)
    return expression_key(f"^{pattern}$", ignores_case=True)


def origin_lines(cors: Cors, values: OwnMaps) -> Iterator[ConfigLine]:
    """Yield the lines that add CORS headers to answers for an allowed origin, and answer its preflight requests."""
    origin = sample("req.fhdr", "origin")
    if cors.any_origin:
        yield put_text("origin", log_format("*"))
    else:
        path = values.file("origins", [(_origin_key(allowed), "1") for allowed in cors.origins])
        yield put("origin", origin, when=is_set(origin.then("map_reg", path)))
    known = is_set(variable("origin"))
    values_by_name = {
        "Allow-Credentials": "true" if cors.credentials else "",
        "Allow-Methods": cors.methods,
        "Allow-Headers": cors.headers,
        "Max-Age": str(cors.max_age_s),
        "Expose-Headers": cors.expose,
    }
    texts = {"Allow-Origin": log_format(variable("origin"))}
    texts |= {name: values.text(name.lower(), value) for name, value in values_by_name.items() if value}
    texts |= {name: log_format("") for name, value in values_by_name.items() if not value}
    for name, text in texts.items():
        header = f"Access-Control-{name}"
        yield statement("http-after-response", "del-header", header)
        if text.parts:
            yield statement("http-after-response", "set-header", header, text, when=known)
    yield answer(204, when=(*matches(sample("method"), "str", "OPTIONS"), *known))
