"""What objects said when they were last read: it holds on while nobody can say what they say now.

Not answered yet is not absent, and what is absent is not unrestricted. So a world is completed with what is known from
before: everything that the API server has not answered about, and of what is gone those objects that restrict others,
as the ConfigMap with the settings. All else that is gone is gone: an Ingress whose Secret of passwords is deleted is
closed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, IngressClass, Namespace, ObjectMeta, Secret
from rulegen.model.ingress.unread import GONE, UNUSABLE
from rulegen.model.ingress.values.references import ReferencedNames, header_maps, map_secrets, references, references_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.kube.objects.structs import Ingress
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.options import IngressOptions

KnownObject: TypeAlias = ConfigMap | IngressClass | Namespace | Secret
Recollection: TypeAlias = "Mapping[ObjectKey, KnownObject]"
"""Objects as they were last read, by kind and name."""

_KEYS: Final = frozenset({"tls.crt", "tls.key", "ca.crt", "auth"})
"""What is used of a Secret; of one with a key for each user it is all."""


class CompletedSnapshot(NamedTuple):
    """A world with what is known from before, and the Secrets and ConfigMaps that it refers to."""

    world: ClusterSnapshot
    wanted: ReferencedNames


def completed(
    world: ClusterSnapshot,
    options: IngressOptions,
    before: Recollection,
    unread: Callable[[ObjectKey], str],
    *,
    may_be_gone: bool = True,
) -> CompletedSnapshot:
    """Return a world with what is known from before.

    Args:
        world: The objects that were read.
        options: Which others are named, and whose Ingresses are served.
        before: What is known from before.
        unread: Returns why nobody can say whether an object is there; empty if the server has answered.
        may_be_gone: Whether what the options or the settings name holds on when it is gone; else that is an error.
    """
    world = _with_classes(world, options, before)
    wanted = references_of(
        world,
        options.selection,
        options.prefix,
        config_map=options.config_map,
        default_certificate=options.default_certificate,
    )
    while True:
        restricting = _restricting(world, options) if may_be_gone else set()
        world = _with_named(world, restricting, before, unread, wanted)
        settings = world.config_maps.get(options.config_map) if options.config_map is not None else None
        headers = header_maps(settings) if settings is not None else frozenset()
        if headers <= wanted.config_maps:
            return CompletedSnapshot(world, wanted)
        wanted = ReferencedNames(wanted.secrets, wanted.config_maps | headers)  # known once the settings are


def _with_classes(world: ClusterSnapshot, options: IngressOptions, before: Recollection) -> ClusterSnapshot:
    """Return a world with the IngressClasses that are gone and that Ingresses name, and namespaces likewise."""
    classes, namespaces, recalled = dict(world.ingress_classes), dict(world.namespaces), dict(world.recalled)
    for key, known in before.items():
        if isinstance(known, IngressClass) and key.name.name not in classes and _matters(known, options):
            classes[key.name.name], recalled[key] = known, GONE
        elif isinstance(known, Namespace) and key.name.name not in namespaces and options.selection.namespace_selector:
            namespaces[key.name.name], recalled[key] = known.metadata.labels, GONE
    needed = _around(world.ingresses.values(), options)
    recalled = {key: why for key, why in recalled.items() if key in needed or key in world.recalled}
    return replace(world, ingress_classes=classes, namespaces=namespaces, recalled=recalled)


def _matters(ingress_class: IngressClass, options: IngressOptions) -> bool:
    """Whether more or other Ingresses are ours without a class than with it."""
    selection = options.selection
    return ingress_class.spec.controller == selection.controller or ingress_class.metadata.name == selection.class_name


def _around(ingresses: Iterable[Ingress], options: IngressOptions) -> set[ObjectKey]:
    """Return the IngressClasses and namespaces that decide whose Ingresses are."""
    classes: set[str] = set()
    namespaces: set[str] = set()
    for ingress in ingresses:
        classes.add(ingress.spec.ingress_class_name or "")
        namespaces.add(ingress.metadata.namespace)
    keys = {ObjectKey("IngressClass", ObjectName("", name)) for name in classes if name}
    if options.selection.namespace_selector is not None:
        keys |= {ObjectKey("Namespace", ObjectName("", name)) for name in namespaces}
    return keys


def _with_named(
    world: ClusterSnapshot,
    restricting: set[ObjectKey],
    before: Recollection,
    unread: Callable[[ObjectKey], str],
    wanted: ReferencedNames,
) -> ClusterSnapshot:
    secrets, config_maps = dict(world.secrets), dict(world.config_maps)
    unknown, recalled = dict(world.unread), dict(world.recalled)
    rejected = {rejection.object for rejection in world.rejected}
    keys = [ObjectKey("Secret", name) for name in sorted(wanted.secrets)]
    keys += [ObjectKey("ConfigMap", name) for name in sorted(wanted.config_maps)]
    for key in keys:
        if key.name in (secrets if key.kind == "Secret" else config_maps):
            continue
        why = world.unread.get(key) or ("" if str(key) in rejected else unread(key))
        if why:
            unknown[key] = why
        elif key in restricting:
            why = UNUSABLE if str(key) in rejected else GONE
        known = before.get(key) if why else None
        if isinstance(known, Secret):
            secrets[key.name] = known
        elif isinstance(known, ConfigMap):
            config_maps[key.name] = known
        else:
            continue
        unknown.pop(key, None)
        recalled[key] = why
    return replace(world, secrets=secrets, config_maps=config_maps, unread=unknown, recalled=recalled)


def _restricting(world: ClusterSnapshot, options: IngressOptions) -> set[ObjectKey]:
    """Return the objects without which more would be open than with them, or for other names than before."""
    keys = set()
    if options.default_certificate is not None:
        keys.add(ObjectKey("Secret", options.default_certificate))
    if options.config_map is not None:
        keys.add(ObjectKey("ConfigMap", options.config_map))
        settings = world.config_maps.get(options.config_map)
        keys |= {ObjectKey("ConfigMap", name) for name in (header_maps(settings) if settings is not None else ())}
    return keys


def renewed(world: ClusterSnapshot, wanted: ReferencedNames, options: IngressOptions) -> Recollection:
    """Return what is to be known of a world that was completed: what it refers to, and nothing else."""
    whole = map_secrets(world.ingresses.values(), options.prefix)
    kept: dict[ObjectKey, KnownObject] = {}
    for name in wanted.secrets & world.secrets.keys():
        secret = world.secrets[name]
        kept[ObjectKey("Secret", name)] = secret if name in whole else _used(secret)
    for name in wanted.config_maps & world.config_maps.keys():
        kept[ObjectKey("ConfigMap", name)] = world.config_maps[name]
    for key in _around(world.ingresses.values(), options):
        if key.kind == "IngressClass" and key.name.name in world.ingress_classes:
            if _matters(ingress_class := world.ingress_classes[key.name.name], options):
                kept[key] = ingress_class
        elif key.kind == "Namespace" and key.name.name in world.namespaces:
            labels = dict(world.namespaces[key.name.name])
            kept[key] = Namespace(metadata=ObjectMeta(name=key.name.name, labels=labels))
    return kept


def held(
    world: ClusterSnapshot, options: IngressOptions, before: Mapping[ObjectName, Ingress | None]
) -> ClusterSnapshot:
    """Return a world where Ingresses that name objects not read yet are as they were before.

    One that was not there before is left out; one that waited already is left as it is, and so it is closed.

    Args:
        world: As it was completed.
        options: Whose Ingresses are served.
        before: The Ingresses as they were last served; None for one that waited.
    """
    ingresses, recalled = dict(world.ingresses), dict(world.recalled)
    for name, ingress in world.ingresses.items():
        waits = unread_by(ingress, world, options.prefix)
        if not waits or options.selection.refusal(ingress, world) or before.get(name, ingress) is None:
            continue
        key, why = next(iter(waits.items()))
        earlier = before.get(name)
        if earlier is not None:
            ingresses[name], meanwhile = earlier, "its previous version is served"
        else:
            del ingresses[name]
            meanwhile = "it is not served until it can be read"
        recalled[ObjectKey("Ingress", name)] = f"{key}: {why}: {meanwhile}"
    return replace(world, ingresses=ingresses, recalled=recalled)


def _used(secret: Secret) -> Secret:
    if _KEYS.issuperset(secret.data) and _KEYS.issuperset(secret.string_data):
        return secret  # the same one as before, where it did not change
    return msgspec.structs.replace(
        secret,
        data={key: text for key, text in secret.data.items() if key in _KEYS},
        string_data={key: text for key, text in secret.string_data.items() if key in _KEYS},
    )


def unread_by(ingress: Ingress, world: ClusterSnapshot, prefix: str) -> dict[ObjectKey, str]:
    """Return what an Ingress names and nobody can say whether it is there, each with the reason."""
    if not world.unread:
        return {}
    named = references([ingress], prefix)
    keys = [ObjectKey("Secret", name) for name in sorted(named.secrets)]
    keys += [ObjectKey("ConfigMap", name) for name in sorted(named.config_maps)]
    return {key: world.unread[key] for key in keys if key in world.unread}
