"""The ConfigMap with settings, and the ConfigMaps with headers that it refers to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.errors import ConfigError
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.unread import missing
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.setting import PartialValueError, SettingGuard
from rulegen.model.ingress.values.setting_dependencies import idle_settings
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS, Settings
from rulegen.model.ingress.values.texts import literal
from rulegen.model.ingress.values.without_effect.names import question
from rulegen.model.ingress.values.without_effect.settings import WITHOUT_EFFECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.values.setting import Setting
    from rulegen.model.ingress.values.snippets.judgement import Judgement
    from rulegen.model.ingress.values.texts import Text

KEPT: Final = "the last valid settings stay in use"
"""The report about a ConfigMap that cannot be used, while this process knows an earlier one."""
EMPTY: Final = "it is empty, which counts as absent"
NO_SERVER_HEADER: Final = "the HTTP server of this node cannot set the header Server: it is ignored"


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """Settings, and the faults in their ConfigMap.

    Attributes:
        reports: For each key that has no effect, one line, and whether something is then not served as specified.
        faults: One line for each key that restricts access and cannot be read, with the Ingresses that it protects.
        guards: The same of snippets, which are never used.
        references: Namespace and name of the ConfigMaps that keys name; the namespace is empty where none was given.
    """

    settings: Settings
    reports: tuple[tuple[Verdict, str], ...] = ()
    faults: tuple[tuple[SettingGuard, str], ...] = ()
    references: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    guards: tuple[tuple[SettingGuard, str], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines about keys without effect."""
        return tuple(line for _, line in self.reports)


class ResolvedSettings(NamedTuple):
    """Settings, and the reports about them.

    Attributes:
        guards: Whom snippets guard, which are never used.
        where: Where they are written.
        faults: The faults of keys that restrict access and cannot be read.
    """

    settings: Settings
    guards: frozenset[SettingGuard]
    reasons: list[Reason]
    where: str = ""
    faults: tuple[tuple[SettingGuard, str], ...] = ()

    def or_before(self, before: ResolvedSettings | None) -> ResolvedSettings:
        """Return these settings; the previous ones while a setting that restricts access cannot be read.

        What snippets protected before stays closed: the new value may be meant to replace the snippet. Without any
        settings from before, whom it guards is closed.
        """
        if not self.faults:
            return self
        if before is None:
            guards = self.guards.union(guard for guard, _ in self.faults)
            reasons = [_closing(self.where, *fault) for fault in self.faults]
            return self._replace(guards=guards, reasons=[*reasons, *self.reasons])
        kept = [Reason(None, Verdict.WAITING, self.where, f"{fault}: {KEPT}") for _, fault in self.faults]
        closed = sorted(before.guards - self.guards, key=lambda guard: guard.value)
        kept += [_closing(self.where, guard, KEPT) for guard in closed]
        return self._replace(
            settings=before.settings, guards=self.guards | before.guards, reasons=[*kept, *self.reasons]
        )


def _closing(where: str, guard: SettingGuard, fault: str) -> Reason:
    return Reason(None, Verdict.CLOSED, where, f"{fault}: {guard.value}")


def read_settings(texts: Mapping[str, str], base: Settings) -> SettingsRead:
    """Return the settings of a ConfigMap; other settings are those of `base`."""
    values: dict[str, Any] = {}  # each value has the type of its field, which is checked at the declaration
    reports: list[tuple[Verdict, str]] = []
    faults: list[tuple[SettingGuard, str]] = []
    references: dict[str, tuple[str, str]] = {}
    for given, text in sorted(texts.items()):
        key = OTHER_NAMES.get(given, given)
        known = SETTINGS.get(key)
        if known is None:
            reports += _without_effect(given, text.strip())
            continue
        if not text.strip() and not known.may_be_empty:
            reports.append((_of_empty(getattr(base, _field(key)), known), f"data.{given}: {EMPTY}"))
            continue
        try:
            value = known.read(text.strip())
        except PartialValueError as error:
            value = error.value
            reports.append((Verdict.IGNORED, f"data.{given}: {error}"))
        except ValueError as error:
            if known.guards is not SettingGuard.NOTHING:
                faults.append((known.guards, f"data.{given}: {error}"))
            else:
                reports.append((Verdict.IGNORED, f"data.{given}: {error}; it is ignored"))
            continue
        if known.read_header is not None:
            references[key] = value
        else:
            values[_field(key)] = value
    settings = replace(base, **values)
    guards = tuple(_judge_snippets(settings, reports))
    reports += idle_settings({key for key, text in texts.items() if text.strip()}, settings)
    return SettingsRead(settings, tuple(reports), tuple(faults), references, guards)


def _of_empty(absent: object, known: Setting) -> Verdict:
    """Return the verdict for a key without text: a note if it has no default and restricts nothing, else ignored."""
    return Verdict.IGNORED if absent or known.guards is not SettingGuard.NOTHING else Verdict.NOTE


def _judge_snippets(settings: Settings, reports: list[tuple[Verdict, str]]) -> Iterator[tuple[SettingGuard, str]]:
    """Yield the snippets that may protect Ingresses, with the protected Ingresses; add reports about the others."""
    everyone, asking = SettingGuard.ALL, SettingGuard.WITHOUT_AUTH
    snippets: tuple[tuple[str, Judgement, SettingGuard, bool], ...] = (
        ("http-snippet", settings.http_snippet, everyone, True),
        ("server-snippet", settings.server_snippet, everyone, True),
        ("location-snippet", settings.location_snippet, everyone, True),
        ("modsecurity-snippet", settings.modsecurity_snippet, everyone, settings.enable_modsecurity),
        ("global-auth-snippet", settings.global_auth_snippet, asking, bool(settings.global_auth_url)),
    )
    if settings.enable_modsecurity:
        message = "ModSecurity is not available, so it protects nothing here"
        reports.append((Verdict.UNSUPPORTED, f"data.enable-modsecurity: {message}"))
    for key, judgement, guard, has_effect in snippets:
        if judgement.protects and has_effect:
            yield guard, f"data.{key}: {judgement.message}"
        elif judgement.message:
            reports.append((Verdict.UNSUPPORTED, f"data.{key}: {judgement.message}"))


def _field(key: str) -> str:
    return key.replace("-", "_")


def _without_effect(key: str, text: str) -> Iterator[tuple[Verdict, str]]:
    """Yield reports about a key that is no setting; none if rulegen already does what its value requests."""
    known = WITHOUT_EFFECT.get(key)
    if known is None:
        meant = question(key, [*SETTINGS, *OTHER_NAMES, *WITHOUT_EFFECT])
        line = f"data.{readers.printable(key)}: no such key in any release of ingress-nginx; it is ignored{meant}"
        yield Verdict.IGNORED, line
    elif text not in known.fulfilled_by:
        yield known.verdict, f"data.{key}: {known.message}"


def settings_of(
    world: ClusterSnapshot, name: ObjectName | None, base: Settings, *, has_ipv6: bool, sets_server: bool
) -> ResolvedSettings:
    """Return the settings of a ConfigMap, and reports about its keys without effect.

    Args:
        world: All ConfigMaps.
        name: The ConfigMap with settings; None for none.
        base: Settings for keys that it does not contain.
        has_ipv6: Whether the host has IPv6.
        sets_server: Whether the HTTP server can replace its own header Server.

    Raises:
        MissingError: The ConfigMap does not exist, or one that it refers to.
        ConfigError: It contains only listen addresses that this host cannot have.
    """
    reasons: list[Reason] = []
    if name is None:
        return ResolvedSettings(base, frozenset(), reasons)
    where = f"ConfigMap {name}"

    def ignore(message: str) -> None:
        reasons.append(Reason(None, Verdict.IGNORED, where, message))

    config_map = world.config_maps.get(name)
    if config_map is None:
        raise missing(world, "ConfigMap", name, named_by="--configmap")
    read = read_settings(config_map.data, base)
    reasons += [_closing(where, *guard) for guard in read.guards]
    reasons += [Reason(None, verdict, where, line) for verdict, line in read.reports]
    headers: dict[str, Any] = {
        _field(key): _headers(world, ObjectName(namespace or name.namespace, other), key, where, ignore)
        for key, (namespace, other) in read.references.items()
    }
    settings = replace(read.settings, **headers)
    _check_addresses(settings, where, has_ipv6=has_ipv6)
    if not sets_server:
        settings = _without_server(settings, ignore)
    if settings.use_proxy_protocol and settings.use_forwarded_headers:
        ignore("data.use-forwarded-headers: the client's address is that of use-proxy-protocol, not of X-Forwarded-For")
    trusts = settings.use_forwarded_headers or settings.enable_real_ip or settings.use_proxy_protocol
    if trusts and any(network.prefixlen == 0 for network in settings.proxy_real_ip_cidr):
        message = "data.proxy-real-ip-cidr: any client can fake its address; give the networks of your load balancers"
        reasons.append(Reason(None, Verdict.NOTE, where, message))
    guards = frozenset(guard for guard, _ in read.guards)
    return ResolvedSettings(settings, guards, reasons, where, read.faults)


def _check_addresses(settings: Settings, where: str, *, has_ipv6: bool) -> None:
    if not settings.bind_address or not all(":" in address for address in settings.bind_address):
        return
    message = f"{where}: data.bind-address names IPv6 addresses alone"
    if settings.disable_ipv6:
        raise ConfigError(f"{message}, and data.disable-ipv6 is true")
    if not has_ipv6:
        raise ConfigError(f"{message}, and this host has no IPv6")


def _without_server(settings: Settings, ignore: Callable[[str], None]) -> Settings:
    """Return settings without the header Server, which a response would otherwise contain twice.

    `global-allowed-response-headers` keeps it, because otherwise an Ingress that sets it would be closed; it has no
    effect.
    """
    if any(name.lower() == "server" for name in settings.global_allowed_response_headers):
        ignore(f"data.global-allowed-response-headers: {NO_SERVER_HEADER}")
    added = tuple(pair for pair in settings.add_headers if pair[0].lower() != "server")
    if len(added) == len(settings.add_headers):
        return settings
    ignore(f"data.add-headers: {NO_SERVER_HEADER}")
    return replace(settings, add_headers=added)


def _headers(
    world: ClusterSnapshot, name: ObjectName, key: str, where: str, warn: Callable[[str], None]
) -> tuple[tuple[str, Text], ...]:
    config_map = world.config_maps.get(name)
    if config_map is None:
        raise missing(world, "ConfigMap", name, named_by=f"{key} in {where}")
    read = SETTINGS[key].read_header or literal
    pairs = []
    for header, text in sorted(config_map.data.items()):
        try:
            pairs.append((readers.settable_header(header), read(text)))
        except ValueError as error:
            warn(f"data.{key}: ConfigMap {name}: {error}; it is ignored")
    return tuple(pairs)
