"""The events of a watch: complete lists, and changes of single objects after them.

The events of one kind are in order. If a consumer applies each event to its objects by kind and name, it has the state
of the server at that moment. Invalid objects are reported too, because a change can make a valid object invalid. Its
earlier state must then be removed.
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
    """All objects of a kind at one moment: replaces all known objects of the kind.

    Attributes:
        kind: The struct of the objects.
        objects: Valid and rejected objects, in any order.
    """

    kind: type[KubeObject]
    objects: tuple[Decoded | Rejected, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One object was added or changed.

    Attributes:
        kind: The struct of the object.
        state: The new state. If it is rejected, an older valid state must not be used either.
        name: Its name, which `Rejected` does not contain.
    """

    kind: type[KubeObject]
    state: Decoded | Rejected
    name: ObjectName


@dataclass(frozen=True, slots=True)
class Gone:
    """One object was deleted or, if it is watched by name, does not exist.

    Attributes:
        kind: The struct of the object.
        name: Its name.
    """

    kind: type[KubeObject]
    name: ObjectName


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """One object is not watched any more: whether it exists, and its content, are unknown from now on.

    Attributes:
        kind: The struct of the object.
        name: Its name.
    """

    kind: type[KubeObject]
    name: ObjectName


Event: TypeAlias = Listed | Changed | Gone | Unfollowed


def scoped(kind: type[KubeObject], namespace: str, name: str) -> ObjectName:
    """Return the name of an object as in `Decoded`: with the default namespace, or without one if cluster-scoped.

    >>> from rulegen.kube.objects.structs import Node, Service
    >>> scoped(Node, "", "a"), scoped(Service, "", "a")
    (ObjectName(namespace='', name='a'), ObjectName(namespace='default', name='a'))
    """
    return ObjectName("" if kind in CLUSTER_SCOPED else namespace or "default", name)


def called(kind: type[KubeObject], name: ObjectName) -> str:
    """Return the text that `Rejected.object` contains for this name, such as `Service shop/web`.

    With it, a consumer finds the rejected object of an earlier list that a later event changes.
    """
    return title(kind.__name__, printable(name.namespace), printable(name.name))


def name_of(decoded: Decoded) -> ObjectName:
    """Return the name of a valid object, as in events."""
    return decoded.name
