"""Secrets and ConfigMaps that Ingresses and settings refer to; only these are requested from the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.structs import ConfigMap, Ingress
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.values.classes import Selection

SECRETS: Final = tuple(name for name, known in ANNOTATIONS.items() if known.refers_to == "Secret")
CONFIG_MAPS: Final = tuple(name for name, known in ANNOTATIONS.items() if known.refers_to == "ConfigMap")
HEADER_KEYS: Final = tuple(key for key, known in SETTINGS.items() if known.read_header is not None)


class ReferencedNames(NamedTuple):
    """Names of objects, by kind."""

    secrets: frozenset[ObjectName]
    config_maps: frozenset[ObjectName]


def references(ingresses: Iterable[Ingress], prefix: str) -> ReferencedNames:
    """Return the objects that Ingresses refer to, in their own namespaces. The model reports invalid references."""
    secrets: set[ObjectName] = set()
    config_maps: set[ObjectName] = set()
    kinds = [(f"{prefix}/{name}", secrets) for name in SECRETS] + [
        (f"{prefix}/{name}", config_maps) for name in CONFIG_MAPS
    ]
    for ingress in ingresses:
        if ingress.spec.tls:
            namespace = ingress.metadata.namespace
            secrets.update(ObjectName(namespace, tls.secret_name) for tls in ingress.spec.tls if tls.secret_name)
        if annotations := ingress.metadata.annotations:
            for key, objects in kinds:
                text = annotations.get(key)
                if text is not None and (named := _named(ingress.metadata.namespace, text)) is not None:
                    objects.add(named)
    return ReferencedNames(frozenset(secrets), frozenset(config_maps))


def references_of(
    world: ClusterSnapshot,
    selection: Selection,
    prefix: str,
    *,
    config_map: ObjectName | None = None,
    default_certificate: ObjectName | None = None,
) -> ReferencedNames:
    """Return the Secrets and ConfigMaps that a site needs.

    References in the settings are included once their ConfigMap is in the snapshot.

    Args:
        world: Ingresses and IngressClasses; with a namespace selector, also Namespaces.
        selection: Selects the Ingresses to serve.
        prefix: Prefix of annotations.
        config_map: The ConfigMap with settings.
        default_certificate: The Secret of the default certificate.
    """
    ours = [ingress for ingress in world.ingresses.values() if not selection.refusal(ingress, world)]
    secrets, config_maps = references(ours, prefix)
    if default_certificate is not None:
        secrets |= {default_certificate}
    if config_map is not None:
        config_maps |= {config_map}
        settings = world.config_maps.get(config_map)
        config_maps |= header_maps(settings) if settings is not None else frozenset()
    return ReferencedNames(secrets, config_maps)


def header_maps(config_map: ConfigMap) -> frozenset[ObjectName]:
    """Return the ConfigMaps that the ConfigMap with settings refers to."""
    names = (config_map.data.get(key) for key in HEADER_KEYS)
    maps = (_named(config_map.metadata.namespace, text, any_namespace=True) for text in names if text)
    return frozenset(name for name in maps if name is not None)


def map_secrets(ingresses: Iterable[Ingress], prefix: str) -> frozenset[ObjectName]:
    """Return the Secrets of passwords that contain one key for each user."""
    names = set()
    secret, kind = f"{prefix}/{access.AUTH_SECRET.name}", f"{prefix}/{access.AUTH_SECRET_TYPE.name}"
    for ingress in ingresses:
        annotations = ingress.metadata.annotations
        text = annotations.get(secret)
        if text is not None and annotations.get(kind, "").strip() == "auth-map":
            names.add(_named(ingress.metadata.namespace, text))
    return frozenset(name for name in names if name is not None)


def _named(namespace: str, text: str, *, any_namespace: bool = False) -> ObjectName | None:
    try:
        given, name = readers.reference(text.strip())
    except ValueError:
        return None
    if given in ("", namespace):
        return ObjectName(namespace, name)
    return ObjectName(given, name) if any_namespace else None
