"""Last known contents of objects, used while the API server does not answer.

An object that was not read yet does not count as absent. `completed` adds known contents to a snapshot: of all objects
for which the API server has not answered, and of deleted objects that restrict others, such as the ConfigMap with
settings. Other deleted objects remain deleted: if the Secret of passwords is deleted, its Ingress is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

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
"""Last known contents of objects, by kind and name."""

_KEYS: Final = frozenset({"tls.crt", "tls.key", "ca.crt", "auth"})
"""The keys of a Secret that are used; of a Secret with one key for each user, all are."""


class CompletedSnapshot(NamedTuple):
    """A snapshot with last known contents, and the Secrets and ConfigMaps that it refers to."""

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
    """Return a snapshot completed with last known contents.

    Args:
        world: The snapshot.
        options: Options, which select the Ingresses and may refer to objects.
        before: Last known contents.
        unread: Returns why the existence of an object is unknown; empty if the server has answered.
        may_be_gone: Whether deleted objects that the options or settings refer to remain in use. Otherwise that is an
            error.
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
        wanted = ReferencedNames(wanted.secrets, wanted.config_maps | headers)  # the settings may add references


def _with_classes(world: ClusterSnapshot, options: IngressOptions, before: Recollection) -> ClusterSnapshot:
    """Return the snapshot with deleted IngressClasses and Namespaces that Ingresses still need."""
    classes, namespaces, recalled = dict(world.ingress_classes), dict(world.namespaces), dict(world.recalled)
    for key, known in before.items():
        if isinstance(known, IngressClass) and key.name.name not in classes and _matters(known, options):
            classes[key.name.name], recalled[key] = known, GONE
        elif isinstance(known, Namespace) and key.name.name not in namespaces and options.selection.namespace_selector:
            namespaces[key.name.name], recalled[key] = known.metadata.labels, GONE
    needed = _around(_all(world), options)
    recalled = {key: why for key, why in recalled.items() if key in needed or key in world.recalled}
    return replace(world, ingress_classes=classes, namespaces=namespaces, recalled=recalled)


def _matters(ingress_class: IngressClass, options: IngressOptions) -> bool:
    """Whether the absence of an IngressClass may change which Ingresses are served."""
    selection = options.selection
    return ingress_class.spec.controller == selection.controller or ingress_class.metadata.name == selection.class_name


def _all(world: ClusterSnapshot) -> Iterable[Ingress]:
    """Return all Ingresses, also invalid ones."""
    return (*world.ingresses.values(), *(known.ingress for known in world.unusable.values()))


def _around(ingresses: Iterable[Ingress], options: IngressOptions) -> set[ObjectKey]:
    """Return the IngressClasses and Namespaces that decide which Ingresses are served."""
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
    """Return the objects whose absence would remove restrictions, or change the names that are served."""
    keys = set()
    if options.default_certificate is not None:
        keys.add(ObjectKey("Secret", options.default_certificate))
    if options.config_map is not None:
        keys.add(ObjectKey("ConfigMap", options.config_map))
        settings = world.config_maps.get(options.config_map)
        keys |= {ObjectKey("ConfigMap", name) for name in (header_maps(settings) if settings is not None else ())}
    return keys


def renewed(world: ClusterSnapshot, wanted: ReferencedNames, options: IngressOptions) -> Recollection:
    """Return the contents to remember of a completed snapshot: those of objects that it refers to."""
    whole = map_secrets(world.ingresses.values(), options.prefix)
    kept: dict[ObjectKey, KnownObject] = {}
    for name in wanted.secrets & world.secrets.keys():
        secret = world.secrets[name]
        kept[ObjectKey("Secret", name)] = secret if name in whole else _used(secret)
    for name in wanted.config_maps & world.config_maps.keys():
        kept[ObjectKey("ConfigMap", name)] = world.config_maps[name]
    for key in _around(_all(world), options):
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
    """Return a snapshot in which Ingresses with unread references have their previously served version.

    An Ingress without a previous version stays as it is: without what it waits for, it is closed. If it were left out,
    its requests would go to other Ingresses.

    Args:
        world: The completed snapshot.
        options: Options, which select the Ingresses.
        before: Previously served version of each Ingress; None for one that waited.
    """
    ingresses, recalled = dict(world.ingresses), dict(world.recalled)
    for name, ingress in world.ingresses.items():
        waits = unread_by(ingress, world, options.prefix)
        earlier = before.get(name)
        if not waits or earlier is None or options.selection.refusal(ingress, world):
            continue
        key, why = next(iter(waits.items()))
        ingresses[name] = earlier
        recalled[ObjectKey("Ingress", name)] = f"{key}: {why}: its previous version is served"
    return replace(world, ingresses=ingresses, recalled=recalled)


def _used(secret: Secret) -> Secret:
    if _KEYS.issuperset(secret.data) and _KEYS.issuperset(secret.string_data):
        return secret  # the same object, so that comparisons stay cheap
    return msgspec.structs.replace(
        secret,
        data={key: text for key, text in secret.data.items() if key in _KEYS},
        string_data={key: text for key, text in secret.string_data.items() if key in _KEYS},
    )


def unread_by(ingress: Ingress, world: ClusterSnapshot, prefix: str) -> dict[ObjectKey, str]:
    """Return the referenced objects whose existence is unknown, each with the reason."""
    if not world.unread:
        return {}
    named = references([ingress], prefix)
    keys = [ObjectKey("Secret", name) for name in sorted(named.secrets)]
    keys += [ObjectKey("ConfigMap", name) for name in sorted(named.config_maps)]
    return {key: world.unread[key] for key in keys if key in world.unread}
