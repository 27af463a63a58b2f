"""The complete configuration of HAProxy for an L7 model: sections, maps, the list of certificates, and their texts."""

from __future__ import annotations

import re
from bisect import insort
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulegen.backends.haproxy.frontend import answer, expressions_file, frontend_section
from rulegen.backends.haproxy.hosts.joined import joined_hosts
from rulegen.backends.haproxy.location import (
    ConfigParts,
)
from rulegen.backends.haproxy.lua_program.asking import AUTH
from rulegen.backends.haproxy.lua_program.canaries import CANARIES as CANARY_PROGRAM
from rulegen.backends.haproxy.lua_program.requests import PROGRAM
from rulegen.backends.haproxy.maps import network_entries, ordered_expressions
from rulegen.backends.haproxy.names import (
    ADDRESSES,
    AUTH_SERVERS,
    CANARIES,
    CERTIFICATES,
    CONFIG,
    HOSTS,
    LUA,
    NO_LOCATION,
    SHARES,
    SLOTS,
    SPARES,
    TRUSTED,
    USERS,
)
from rulegen.backends.haproxy.process import default_section, described, global_section, resolver_sections
from rulegen.backends.haproxy.rules.access import passwords_file, users_name
from rulegen.backends.haproxy.rules.clients import tls_options
from rulegen.backends.haproxy.served import (
    disobeyed_settings,
)
from rulegen.backends.haproxy.stock import BackendNames, ExpressionSlots
from rulegen.languages.configuration import Configuration, SecretContent, digest_of
from rulegen.languages.haproxy.check import check_certificates, check_map, check_sections
from rulegen.languages.haproxy.runtime import structural_lines, structural_secrets, structure_of
from rulegen.languages.haproxy.text import certificate_line, format_map, format_sections
from rulegen.languages.haproxy.tree import ConfigSection, statement
from rulegen.languages.haproxy.written import has_same_rules, write_map, write_sections
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.upstreams.moves import upstreams_by_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.backends.haproxy.hosts.host import HostParts
    from rulegen.backends.haproxy.hosts.joined import HostBlock, JoinedHosts
    from rulegen.backends.haproxy.stock import BackendStock
    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.haproxy.written import SectionTexts
    from rulegen.model.ingress.ir import IngressModel, LocationPolicy, Upstream

NO_ENTRY = [("::", "!")]
"""A map of Lua must have an entry; no client can send this key as a user."""
_NAMES = 1000
"""Names of TLS in one line; HAProxy reads 2,048 words."""
_BY_LUA = re.compile(r"\$apr1\$|\{(?:SHA|SSHA|PLAIN)\}")


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
        blocks: The same for blocks of hosts.
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
    blocks: Mapping[str, HostBlock] = field(default_factory=dict, compare=False, repr=False)
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
    slots = ExpressionSlots(stock)
    is_alike = before is not None and _defaults(before.model) == _defaults(model)
    known = before.hosts if before is not None and is_alike else {}
    is_same = before is not None and stock is not None and before.stock is stock
    blocks = before.blocks if before is not None and is_alike and is_same else {}
    joined, blocks = joined_hosts(model, parts, known, blocks)
    for host, expressions in joined.expressions.items():
        parts.maps[expressions_file(slots.take(host))] = expressions
    joined.names.pop("", None)
    reasons = {*_setting_reasons(model), *joined.reasons}
    _maps(joined, slots, parts, model, before.maps if before is not None else {})
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
        model=replace(model, reasons=_in_order({*model.reasons, *reasons}, before.model.reasons if before else ())),
        taken=tuple(sorted((spare, own) for own, spare in parts.names.taken.items())),
        backends={host: own.names for host, own in joined.hosts.items()},
        owners={name: tuple(owners) for name, owners in parts.owners.items()},
        chosen=parts.chosen,
        upstreams=upstreams_by_service(model.upstreams.values()),
        asked=frozenset(parts.auth_servers),
        hosts={host: own for host, own in joined.hosts.items() if own.parts is not parts},
        blocks=blocks,
        stock=replace(stock, maps=maps, taken=dict(parts.names.taken)) if stock is not None else None,
    )


def _defaults(model: IngressModel) -> tuple[object, ...]:
    return model.resolvers, model.defaults


def _in_order(reasons: set[Reason], before: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return reports in order, of which most have been in order before."""
    kept = [reason for reason in before if reason in reasons]
    new = reasons.difference(kept)
    if len(new) > len(kept):
        return tuple(sorted(reasons))
    for reason in new:
        insort(kept, reason)
    return tuple(kept)


def _sorted(entries: Mapping[str, str], before: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return the entries of a map by their keys; those that it had before are the same objects."""
    kept = {entry[0]: entry for entry in before if entries.get(entry[0]) == entry[1]}
    if len(kept) == len(entries) == len(before):
        return before
    return sorted((*kept.values(), *(entry for entry in entries.items() if entry[0] not in kept)))


def _maps(
    joined: JoinedHosts,
    slots: ExpressionSlots,
    parts: ConfigParts,
    model: IngressModel,
    before: Mapping[str, Sequence[tuple[str, str]]],
) -> None:
    """Add the maps of all hosts."""
    for path, entries in ((HOSTS, joined.names), *joined.tables.items()):
        parts.maps[path] = _sorted(entries, before.get(path, ()))
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
