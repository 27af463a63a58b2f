"""The ConfigMap with settings, and the ConfigMaps with headers that it names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.errors import ConfigError
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.unread import missing
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.values.settings import Settings


def settings_of(world: ClusterSnapshot, name: ObjectName | None, base: Settings) -> tuple[Settings, list[Reason]]:
    """Return the settings that a ConfigMap makes of `base`, and what of it is not obeyed.

    Args:
        world: With all ConfigMaps there are.
        name: The one with the settings; None for none.
        base: What holds where it says nothing.

    Raises:
        MissingError: It is not there, or a ConfigMap that it names.
        ConfigError: A key that keeps somebody out cannot be read.
    """
    reasons: list[Reason] = []
    if name is None:
        return base, reasons
    where = f"ConfigMap {name}"

    def tell(message: str) -> None:
        reasons.append(Reason(None, Verdict.NOTE, where, message))

    found = world.config_maps.get(name)
    if found is None:
        raise missing(world, "ConfigMap", name, named_by="--configmap")
    read = read_settings(found.data, base)
    if read.errors:
        raise ConfigError(f"{where}: {'; '.join(read.errors)}", hint="mend the ConfigMap: it keeps somebody out")
    for warning in read.warnings:
        tell(warning)
    settings = read.settings
    if settings.disable_ipv6 and settings.bind_address and all(":" in one for one in settings.bind_address):
        raise ConfigError(f"{where}: data.bind-address names IPv6 addresses alone, and data.disable-ipv6 is true")
    for key, (namespace, other) in read.references.items():
        headers = _headers(world, ObjectName(namespace or name.namespace, other), key, where, tell)
        if key == "add-headers":
            settings = replace(settings, add_headers=headers)
        else:
            settings = replace(settings, proxy_set_headers=headers)
    trusts = settings.use_forwarded_headers or settings.enable_real_ip or settings.use_proxy_protocol
    if trusts and any(network.prefixlen == 0 for network in settings.proxy_real_ip_cidr):
        tell(
            "data.proxy-real-ip-cidr: everybody's word is taken for the client's address; name the networks of your"
            " load balancers"
        )
    return settings, reasons


def _headers(
    world: ClusterSnapshot, name: ObjectName, key: str, where: str, tell: Callable[[str], None]
) -> tuple[tuple[str, str], ...]:
    found = world.config_maps.get(name)
    if found is None:
        raise missing(world, "ConfigMap", name, named_by=f"{key} in {where}")
    pairs = []
    for header, text in sorted(found.data.items()):
        try:
            pairs.append((readers.settable_header(header), readers.header_text(text)))
        except ValueError as error:
            tell(f"data.{key}: ConfigMap {name}: {error}; it is ignored")
    return tuple(pairs)
