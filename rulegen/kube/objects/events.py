"""What a watcher tells of a cluster: complete lists, and single changes after them.

Events of one kind come in order. Whoever keeps, for each kind, the objects by name and takes each event as it says,
has what the server had at that moment, whatever came before. Objects that cannot be used are told too, since a change
may turn a good object into a bad one, which must then be let go of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rulegen.kube.objects.kinds import CLUSTER_SCOPED, title
from rulegen.kube.objects.names import ObjectName
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.errors import Rejected
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a kind, at one moment: replaces all that is known of the kind.

    Attributes:
        kind: The struct of the objects.
        objects: Usable ones and others, in no order that means anything.
    """

    kind: type[KubeObject]
    objects: tuple[Decoded | Rejected, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One object came to be, or is another now.

    Attributes:
        kind: The struct of the object.
        state: As it is now; if it cannot be used now, an older state of it is not to be used any longer either.
        name: Its name, which a rejected object cannot tell.
    """

    kind: type[KubeObject]
    state: Decoded | Rejected
    name: ObjectName


@dataclass(frozen=True, slots=True)
class Gone:
    """One object is no longer there, or never was (which is told only of those that are asked for by name).

    Attributes:
        kind: The struct that the object had.
        name: Its name.
    """

    kind: type[KubeObject]
    name: ObjectName


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """One object is not asked for any more: whether it is there, and what it says, is not known from now on.

    Attributes:
        kind: The struct of the object.
        name: Its name.
    """

    kind: type[KubeObject]
    name: ObjectName


Event: TypeAlias = Listed | Changed | Gone | Unfollowed


def scoped(kind: type[KubeObject], namespace: str, name: str) -> ObjectName:
    """Return the name of an object as a decoded one has it: with a namespace, or without where the kind has none.

    >>> from rulegen.kube.objects.structs import Node, Service
    >>> scoped(Node, "", "a"), scoped(Service, "", "a")
    (ObjectName(namespace='', name='a'), ObjectName(namespace='default', name='a'))
    """
    return ObjectName("" if kind in CLUSTER_SCOPED else namespace or "default", name)


def called(kind: type[KubeObject], name: ObjectName) -> str:
    """Return what `Rejected.object` says of an object of this name, as `Service shop/web`.

    By it a consumer finds, among the rejected objects of an earlier list, the one that a later event is about.
    """
    return title(kind.__name__, printable(name.namespace), printable(name.name))


def name_of(decoded: Decoded) -> ObjectName:
    """Return the name of a usable object, as events have it."""
    metadata = decoded.object.metadata
    return ObjectName(metadata.namespace, metadata.name)
