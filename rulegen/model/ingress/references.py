"""Which Secrets and ConfigMaps Ingresses name, so that these and no others are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.kube.world import ObjectName
from rulegen.model.ingress import values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects import ConfigMap, Ingress

SECRETS: Final = ("auth-secret", "auth-tls-secret", "proxy-ssl-secret")
CONFIG_MAPS: Final = ("auth-proxy-set-headers", "custom-headers", "fastcgi-params-configmap")


class References(NamedTuple):
    """Names of objects, by kind."""

    secrets: frozenset[ObjectName]
    config_maps: frozenset[ObjectName]


def references(ingresses: Iterable[Ingress], prefix: str) -> References:
    """Return what Ingresses name, of their own namespaces alone; a name that is none is left to the model to tell."""
    secrets: set[ObjectName] = set()
    config_maps: set[ObjectName] = set()
    for ingress in ingresses:
        namespace = ingress.metadata.namespace
        secrets |= {ObjectName(namespace, tls.secret_name) for tls in ingress.spec.tls if tls.secret_name}
        for names, found in ((SECRETS, secrets), (CONFIG_MAPS, config_maps)):
            for name in names:
                told = ingress.metadata.annotations.get(f"{prefix}/{name}")
                if told is not None and (named := _named(namespace, told)) is not None:
                    found.add(named)
    return References(frozenset(secrets), frozenset(config_maps))


def header_maps(config_map: ConfigMap) -> frozenset[ObjectName]:
    """Return the ConfigMaps that the settings' ConfigMap names."""
    names = (config_map.data.get(key) for key in ("add-headers", "proxy-set-headers"))
    found = (_named(config_map.metadata.namespace, text, any_namespace=True) for text in names if text)
    return frozenset(name for name in found if name is not None)


def _named(namespace: str, text: str, *, any_namespace: bool = False) -> ObjectName | None:
    try:
        told, name = values.reference(text.strip())
    except ValueError:
        return None
    if told in ("", namespace):
        return ObjectName(namespace, name)
    return ObjectName(told, name) if any_namespace else None
