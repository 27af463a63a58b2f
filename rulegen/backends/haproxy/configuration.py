"""The complete configuration of HAProxy for an L7 model: sections, maps, the list of certificates, and their texts."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulegen.backends.haproxy.frontend import answer, expressions_file, frontend_section
from rulegen.backends.haproxy.location import (
    ConfigParts,
    add_app_root,
    add_closed,
    add_location,
    add_www,
)
from rulegen.backends.haproxy.lua_program.asking import AUTH
from rulegen.backends.haproxy.lua_program.canaries import CANARIES as CANARY_PROGRAM
from rulegen.backends.haproxy.lua_program.requests import PROGRAM
from rulegen.backends.haproxy.maps import network_entries, ordered_expressions, path_key
from rulegen.backends.haproxy.names import (
    ADDRESSES,
    AUTH_SERVERS,
    CANARIES,
    CERTIFICATES,
    CONFIG,
    EXACT,
    HEALTHY,
    HOSTS,
    LUA,
    NO_LOCATION,
    PREFIX,
    SHARES,
    SLOTS,
    SPARES,
    TRUSTED,
    USERS,
    server_id,
)
from rulegen.backends.haproxy.obeyed import Obeyed
from rulegen.backends.haproxy.own_maps import OwnMaps
from rulegen.backends.haproxy.process import default_section, described, global_section, resolver_sections
from rulegen.backends.haproxy.rules.access import passwords_file, users_name
from rulegen.backends.haproxy.rules.clients import tls_options
from rulegen.backends.haproxy.served import (
    disobeyed_by_host,
    disobeyed_by_location,
    disobeyed_by_path,
    disobeyed_settings,
)
from rulegen.backends.haproxy.stock import BackendNames, ExpressionSlots
from rulegen.kube.objects.names import ObjectKey
from rulegen.languages.configuration import Configuration, SecretContent, digest_of
from rulegen.languages.haproxy.check import check_certificates, check_map, check_sections
from rulegen.languages.haproxy.runtime import structural_lines, structural_secrets, structure_of
from rulegen.languages.haproxy.text import UnwritableError, certificate_line, format_map, format_sections
from rulegen.languages.haproxy.tree import ConfigSection, statement
from rulegen.languages.haproxy.written import has_same_rules, write_map, write_sections
from rulegen.model.ingress.ir import MatchKind
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.upstreams.moves import upstreams_by_service
from rulegen.model.ingress.upstreams.reads import RecordedMapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.backends.haproxy.stock import BackendStock, ChosenName
    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.haproxy.written import SectionTexts
    from rulegen.model.ingress.ir import IngressModel, Location, LocationPolicy, Server, Upstream

NO_ENTRY = [("::", "!")]
"""A map of Lua must have an entry; no client can send this key as a user."""
_KIND = "Ingress"
_NO_NAMES = BackendNames()
_VERDICTS = {Obeyed.OTHERWISE: Verdict.NOTE, Obeyed.NOT: Verdict.UNSUPPORTED, Obeyed.CLOSES: Verdict.CLOSED}
_NAMES = 1000
"""Names of TLS in one line; HAProxy reads 2,048 words."""
_BY_LUA = re.compile(r"\$apr1\$|\{(?:SHA|SSHA|PLAIN)\}")


@dataclass(frozen=True, slots=True)
class HostParts:
    """What one host adds to a configuration.

    Attributes:
        server: The host.
        upstreams: The upstreams that were looked up for it.
        choices: The backends that were chosen.
        parts: Its backends, and what they need.
        names: The backend of each location.
        tables: Its paths that are compared as they are, by map.
        expressions: The entries of its map of expressions, in the order in which HAProxy tries them.
        reasons: The values that HAProxy does not apply.
    """

    server: Server
    upstreams: tuple[tuple[str, Upstream | None], ...]
    choices: tuple[ChosenName, ...]
    parts: ConfigParts
    names: tuple[str, ...]
    tables: Mapping[str, Mapping[str, str]]
    expressions: tuple[tuple[str, str], ...]
    reasons: frozenset[Reason]

    def is_valid(self, server: Server, model: IngressModel, names: BackendNames) -> bool:
        """Return whether a host with the same defaults adds the same again, to an HAProxy with these backends."""
        stock = names.stock
        return (
            stock is not None
            and self.server is server
            and all(model.upstreams.get(name) is known for name, known in self.upstreams)
            and all(name in stock.sections for kind, name in self.parts.sections if kind == "backend")
            and all(map(names.is_chosen_again, self.choices))
        )


@dataclass(frozen=True, slots=True)
class HaproxyFiles:
    """A configuration as values, before anything is written.

    Attributes:
        sections: The main file.
        maps: Entries by path, in the order in which HAProxy tries them.
        certificates: Lines of the list of certificates: path, and names of TLS.
        users: The file with the users whose hashes HAProxy checks.
        passwords: Entries by path of the maps with the hashes that Lua checks.
        model: The model; its reasons include the values that HAProxy does not apply.
        taken: Which spare backend serves which upstream.
        backends: The backend of each location, by host and place.
        owners: The Ingresses of each backend.
        chosen: The backends of each upstream, each with the policy of its servers.
        upstreams: The upstreams of each Service.
        asked: The digests of the upstreams that are auth servers or mirrors.
        hosts: What each host adds, for the next compilation.
        stock: What the running HAProxy has with this configuration, if it needs no reload for it; None if unknown.
    """

    sections: tuple[ConfigSection, ...]
    maps: Mapping[str, Sequence[tuple[str, str]]]
    certificates: tuple[tuple[str, tuple[str, ...]], ...]
    users: tuple[ConfigSection, ...]
    passwords: Mapping[str, Sequence[tuple[str, str]]]
    model: IngressModel
    taken: tuple[tuple[str, str], ...] = ()
    backends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    owners: Mapping[str, Sequence[ObjectName]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, LocationPolicy]] = field(default_factory=dict)
    upstreams: Mapping[ObjectName, Sequence[Upstream]] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    hosts: Mapping[str, HostParts] = field(default_factory=dict, compare=False, repr=False)
    stock: BackendStock | None = field(default=None, compare=False, repr=False)


def compile_files(
    model: IngressModel, *, served: bool, stock: BackendStock | None = None, before: HaproxyFiles | None = None
) -> HaproxyFiles:
    """Return the configuration for a model; paths that HAProxy cannot serve are closed and reported.

    Args:
        model: The model.
        served: Whether it is for an HAProxy that rulegen runs, not only for reading.
        stock: What the running HAProxy has, to use it without a reload as far as possible; None for a reload.
        before: The last configuration: with a stock, hosts that have not changed are not compiled again.
    """
    parts = ConfigParts(names=BackendNames(stock))
    hosts: dict[str, str] = {}
    tables: defaultdict[str, dict[str, str]] = defaultdict(dict)
    slots = ExpressionSlots(stock)
    compiled = _hosts(model, parts, before)
    for own in compiled.values():
        server = own.server
        hosts.update(dict.fromkeys((server.host, *server.aliases), server_id(server.host)))
        for path, keys in own.tables.items():
            tables[path].update(keys)
        if own.expressions:
            parts.maps[expressions_file(slots.take(server_id(server.host)))] = own.expressions
        if server.redirects_from:
            hosts[server.redirects_from] = server_id(server.redirects_from)
    hosts.pop("", None)
    reasons = {*_setting_reasons(model), *(reason for own in compiled.values() for reason in own.reasons)}
    _maps(hosts, tables, slots, parts, model)
    parts.add(ConfigSection("backend", NO_LOCATION, (answer(404),)))
    for section, empty in tuple(parts.names.others(parts.sections)):
        parts.add(section)
        for path, entries in empty.items():
            parts.maps.setdefault(path, entries)
    for path, entries in stock.maps.items() if stock is not None else ():
        parts.maps.setdefault(path, entries)
    resumes = all(server.client_auth is None for server in model.servers.values())
    sections = (
        global_section(model.defaults, served=served, resumes=resumes),
        default_section(model.defaults.settings),
        *resolver_sections(model),
        frontend_section(model.defaults, slots.all, parts.choice, resumes=resumes),
        *(parts.sections[key] for key in sorted(parts.sections)),
    )
    users, passwords = _users(model, parts)
    return HaproxyFiles(
        sections=sections,
        maps=(maps := dict(sorted(parts.maps.items()))),
        certificates=tuple(_certificates(model)),
        users=users,
        passwords=passwords,
        model=replace(model, reasons=tuple(sorted({*model.reasons, *reasons}))),
        taken=tuple(sorted((spare, own) for own, spare in parts.names.taken.items())),
        backends={host: own.names for host, own in compiled.items()},
        owners={name: tuple(owners) for name, owners in parts.owners.items()},
        chosen=parts.chosen,
        upstreams=upstreams_by_service(model.upstreams.values()),
        asked=frozenset(parts.auth_servers),
        hosts={host: own for host, own in compiled.items() if own.parts is not parts},
        stock=replace(stock, maps=maps, taken=dict(parts.names.taken)) if stock is not None else None,
    )


def _hosts(model: IngressModel, parts: ConfigParts, before: HaproxyFiles | None) -> dict[str, HostParts]:
    """Return what each host adds, and add it; those that add the same as to the last configuration are not compiled."""
    known: Mapping[str, HostParts] = {}
    if before is not None and (before.model.resolvers, before.model.defaults) == (model.resolvers, model.defaults):
        known = before.hosts
    hosts: dict[str, HostParts] = {}
    for server in model.servers.values():
        own = known.get(server.host)
        if own is None or not own.is_valid(server, model, parts.names):
            own = _compiled_host(server, model, parts)
        if own.parts is not parts:
            parts.include(own.parts)
        hosts[server.host] = own
    return hosts


def _compiled_host(server: Server, model: IngressModel, shared: ConfigParts) -> HostParts:
    """Return what a host adds; with canaries, which hosts may share, this is added to the shared parts at once."""
    parts = shared if any(x.canaries for x in server.locations) else ConfigParts(names=shared.names)
    upstreams = RecordedMapping(model.upstreams)
    model = replace(model, upstreams=upstreams)
    reasons: set[Reason] = set()
    first = len(shared.names.choices)
    names = [(location, _added(location, server, model, parts, reasons)) for location in server.locations]
    tables: dict[str, dict[str, str]] = {EXACT: {}, PREFIX: {}}
    _paths(server, names, tables)
    _extras(server, model, parts, tables)
    if parts is not shared:
        parts.names, parts.values, parts.by_rule = _NO_NAMES, OwnMaps(), {}  # they would keep earlier configurations
    return HostParts(
        server=server,
        upstreams=tuple(upstreams.answers.items()),
        choices=tuple(shared.names.choices[first:]),
        parts=parts,
        names=tuple(name for _, name in names),
        tables=tables,
        expressions=tuple(ordered_expressions(expressions)) if (expressions := list(_expressions(names))) else (),
        reasons=frozenset(reasons),
    )


def _maps(
    hosts: Mapping[str, str],
    tables: Mapping[str, Mapping[str, str]],
    slots: ExpressionSlots,
    parts: ConfigParts,
    model: IngressModel,
) -> None:
    """Add the maps of all hosts."""
    parts.maps[HOSTS] = sorted(hosts.items())
    for path in (EXACT, PREFIX):
        parts.maps[path] = sorted(tables[path].items())
    parts.maps[ADDRESSES] = sorted(parts.addresses.items())
    parts.maps[AUTH_SERVERS] = sorted(parts.auth_servers.items()) or NO_ENTRY
    parts.maps[CANARIES] = sorted(parts.canaries.items())
    parts.maps[SLOTS] = sorted(slots.taken.items())
    for slot in slots.all:
        parts.maps.setdefault(expressions_file(slot), tuple(ordered_expressions(())))
    parts.maps[SHARES] = sorted(dict(parts.shares).items())
    parts.maps[TRUSTED] = network_entries(model.defaults.settings.proxy_real_ip_cidr)


def _setting_reasons(model: IngressModel) -> Iterator[Reason]:
    for key in disobeyed_settings(model.defaults.settings):
        yield Reason(None, Verdict.UNSUPPORTED, key, "this setting has no effect with HAProxy")


def _added(location: Location, server: Server, model: IngressModel, parts: ConfigParts, reasons: set[Reason]) -> str:
    """Return the name of a location's backend, which is added; report values that HAProxy does not apply."""
    about = ObjectKey(_KIND, location.ingress) if location.ingress is not None else None
    disobeyed = [*disobeyed_by_path(location.policy), *disobeyed_by_host(server)]
    closes = [message for how, message in disobeyed if how is Obeyed.CLOSES]
    if about is not None:
        for how, message in disobeyed:
            reasons.add(Reason(about, _VERDICTS[how], location.rule, message))
        for how, message in disobeyed_by_location(location, model) if not closes else ():
            reasons.add(Reason(about, _VERDICTS[how], "", message))
    if not closes:
        try:
            return add_location(location, server, model, parts)
        except UnwritableError as error:
            reasons.add(Reason(about, Verdict.CLOSED, location.rule, f"{error.message}: the path is closed"))
    return add_closed(location, parts)


def _paths(server: Server, names: Sequence[tuple[Location, str]], tables: Mapping[str, dict[str, str]]) -> None:
    """Add the paths of a host that are compared as they are."""
    files = {MatchKind.EXACT: EXACT, MatchKind.PREFIX: PREFIX}
    for location, name in names:
        if (file := files.get(location.kind)) is not None:
            tables[file][f"{server_id(server.host)}{path_key(location.path)}"] = name


def _expressions(names: Sequence[tuple[Location, str]]) -> Iterator[tuple[str, bool, str]]:
    for location, name in names:
        if location.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED}:
            yield location.path, location.kind is MatchKind.REGEX, name


def _extras(server: Server, model: IngressModel, parts: ConfigParts, tables: Mapping[str, dict[str, str]]) -> None:
    """Add what a host answers beside its locations."""
    exact = tables[EXACT]
    if server.app_root:
        exact[f"{server_id(server.host)}/"] = add_app_root(server, parts)
    if not server.host and not any(location.path == "/healthz" for location in server.locations):
        parts.add(ConfigSection("backend", HEALTHY, (answer(200),)))
        exact[f"{server_id('')}/healthz"] = HEALTHY
    if server.redirects_from:
        tables[PREFIX][f"{server_id(server.redirects_from)}/"] = add_www(server, model, parts)


def _certificates(model: IngressModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the lines of the list: the default certificate first, for every name that no other line has.

    The default certificate has another line for names that a wildcard of another line would match, and for all names of
    its hosts if other names are rejected. The first line never changes, since HAProxy cannot replace it at run time.
    """
    default = model.defaults.default_certificate
    names: dict[tuple[str, str], list[str]] = {}
    for server in model.servers.values():
        if server.host:
            own = [server.host, *server.aliases, *([server.redirects_from] if server.redirects_from else [])]
            names.setdefault((server.certificate or default, tls_options(server)), []).extend(own)
    wild = {name.partition(".")[2] for hosts in names.values() for name in hosts if name.startswith("*.")}
    if (default, "") in names and not model.defaults.settings.ssl_reject_handshake:
        names[default, ""] = [name for name in names[default, ""] if name.partition(".")[2] in wild]
    yield default, ()
    for (path, options), hosts in sorted(names.items()):
        first = (options,) if options else ()
        unique = list(dict.fromkeys(hosts))
        yield from ((path, (*first, *unique[start : start + _NAMES])) for start in range(0, len(unique), _NAMES))


def _users(
    model: IngressModel, parts: ConfigParts
) -> tuple[tuple[ConfigSection, ...], dict[str, Sequence[tuple[str, str]]]]:
    """Return the users of password files: those whose hashes HAProxy checks, and those that Lua does."""
    sections: list[ConfigSection] = []
    maps: dict[str, Sequence[tuple[str, str]]] = {}
    for path in sorted(parts.passwords):
        lines = model.secrets[path].content.decode("ascii").splitlines()
        pairs = [(user, text) for user, _, text in (line.partition(":") for line in lines)]
        by_lua = {user: text for user, text in pairs if _BY_LUA.match(text) and " " not in user and user[:1] != "#"}
        maps[passwords_file(path)] = sorted(by_lua.items()) or NO_ENTRY
        words = [statement("user", user, "password", text) for user, text in pairs if not _BY_LUA.match(text)]
        sections.append(ConfigSection("userlist", users_name(path), tuple(words)))
    return tuple(sections), maps


@dataclass(frozen=True, slots=True)
class RenderedFiles:
    """The texts of a configuration.

    Attributes:
        files: The values.
        configuration: The texts.
        structure: The digest of what only a reload changes.
        texts: The text of each section, for the next configuration.
    """

    files: HaproxyFiles
    configuration: Configuration
    structure: str
    texts: SectionTexts = field(compare=False, repr=False)


def render(files: HaproxyFiles, *, served: bool, before: RenderedFiles | None = None) -> RenderedFiles:
    """Return the texts of a configuration, each read back and compared with the values that it was written from.

    Args:
        files: The values.
        served: Whether workers answer the digest of the configuration, for an HAProxy that rulegen runs.
        before: The last configuration: what both have in common is not written again.

    Raises:
        UnwritableError: HAProxy cannot be given a value.
        DifferenceError: A text says something else.
    """
    written = write_sections(CONFIG, files.sections, before.texts if before is not None else {})
    first, *others = (written[id(section)][1] for section in files.sections)
    rest = "\n".join(others)
    texts = {CONFIG: f"{first}\n{rest}", LUA: PROGRAM + AUTH + CANARY_PROGRAM}
    for path, entries in files.maps.items():
        texts[path] = (
            write_map(path, entries, before.files.maps.get(path, ()), before.configuration.files.get(path))
            if before is not None
            else write_map(path, entries)
        )
    texts[CERTIFICATES] = "".join(f"{certificate_line(path, names)}\n" for path, names in files.certificates)
    check_certificates(CERTIFICATES, texts[CERTIFICATES], files.certificates)
    texts[SPARES] = write_map(SPARES, files.taken)
    secrets = _secret_files(files)
    plain = Configuration(files=texts, secrets=secrets)
    digest = digest_of(texts, secrets)
    is_same = before is not None and _has_same_structure(before, plain, written)
    structure = before.structure if before is not None and is_same else structure_of(plain)
    if served:
        own = described(files.sections[0], structure, digest)
        (_, text), *_ = write_sections(CONFIG, [own], {}).values()
        texts = {**texts, CONFIG: f"{text}\n{rest}"}
    return RenderedFiles(files, Configuration(files=texts, secrets=secrets, digest=digest), structure, written)


def _has_same_structure(before: RenderedFiles, plain: Configuration, written: SectionTexts) -> bool:
    """Return whether only servers, entries of maps and certificates differ, so that the structure is the same."""
    earlier = before.configuration
    return (
        earlier.files.keys() == plain.files.keys()
        and earlier.files[LUA] == plain.files[LUA]
        and structural_lines(earlier) == structural_lines(plain)
        and structural_secrets(earlier) == structural_secrets(plain)
        and has_same_rules(before.texts, written)
    )


def _secret_files(files: HaproxyFiles) -> dict[str, SecretContent]:
    """Return certificates, keys and users. HAProxy reads all of them before it drops its privileges."""
    secrets = {
        path: SecretContent(secret.content)
        for path, secret in files.model.secrets.items()
        if not path.endswith(".htpasswd")
    }
    users = format_sections(files.users)
    check_sections(USERS, users, files.users)
    secrets[USERS] = SecretContent(users.encode())
    for path, entries in files.passwords.items():
        text = format_map(entries)
        check_map(path, text, entries)
        secrets[path] = SecretContent(text.encode())
    return secrets
