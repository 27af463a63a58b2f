"""What an annotation is: a name, a type, what an invalid value does, and its documentation, declared in one place.

Reading, the tables of docs/ingress.md, the references to Secrets and ConfigMaps and the warnings follow from it. To add
an annotation, declare it in the module of its subject beside this one; `table` collects it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, overload

from rulegen.model.ingress.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.net import Network

T = TypeVar("T")
V = TypeVar("V")

ReferencedKind: TypeAlias = Literal["", "Secret", "ConfigMap"]


class InvalidValue(enum.Enum):
    """What an invalid value does; the later ones weigh more than the earlier ones."""

    IGNORE = Verdict.IGNORED
    """The default applies."""
    CLOSE = Verdict.CLOSED
    """The paths of the Ingress answer 503: without the annotation everybody would be let in."""
    REJECT = Verdict.REJECTED
    """Nothing of the Ingress is served: nobody knows where its requests are to go."""


IGNORE: Final = InvalidValue.IGNORE
CLOSE: Final = InvalidValue.CLOSE
REJECT: Final = InvalidValue.REJECT
NO_NAMES: Final[tuple[str, ...]] = ()
NO_NETWORKS: Final[tuple[Network, ...]] = ()
_WEIGHTS: Final = {policy: weight for weight, policy in enumerate(InvalidValue)}


def gravest(policy: InvalidValue, other: InvalidValue) -> InvalidValue:
    """Return the one of two policies that weighs more."""
    return max(policy, other, key=_WEIGHTS.__getitem__)


class Annotation(Generic[T]):
    """One annotation of an Ingress; T is the type of its value.

    Attributes:
        name: Without the prefix.
        read: Returns the value of a text; raises ValueError with what is wrong and what was expected.
        documentation: The cell of the table in docs/ingress.md that says what may be written.
        invalid: What an invalid value does.
        default: The value where an Ingress does not have the annotation.
        needs: Annotations of which one must stand beside it, as it has no effect otherwise.
        refers_to: The kind of the object that the value names, so that it is fetched from the API server.
    """

    __slots__ = ("default", "documentation", "invalid", "name", "needs", "read", "refers_to")

    name: str
    read: Callable[[str], T]
    documentation: str
    invalid: InvalidValue
    default: T
    needs: tuple[Annotation[Any], ...]
    refers_to: ReferencedKind

    @overload
    def __init__(
        self: Annotation[V | None],
        name: str,
        read: Callable[[str], V],
        documentation: str,
        invalid: InvalidValue = ...,
        *,
        needs: tuple[Annotation[Any], ...] = ...,
        refers_to: ReferencedKind = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: Annotation[V],
        name: str,
        read: Callable[[str], V],
        documentation: str,
        invalid: InvalidValue = ...,
        *,
        default: V,
        needs: tuple[Annotation[Any], ...] = ...,
        refers_to: ReferencedKind = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        read: Callable[[str], Any],
        documentation: str,
        invalid: InvalidValue = IGNORE,
        *,
        default: Any = None,
        needs: tuple[Annotation[Any], ...] = (),
        refers_to: ReferencedKind = "",
    ) -> None:
        """Declare an annotation; without a default, the value of an absent one is None."""
        self.name, self.read, self.documentation, self.invalid = name, read, documentation, invalid
        self.default, self.needs, self.refers_to = default, needs, refers_to

    def __repr__(self) -> str:
        """Return its name, for failures of tests."""
        return f"Annotation({self.name})"


class AnnotationValues(dict[Annotation[Any], Any]):
    """The values of those annotations that an Ingress has and that could be read; absent ones have their default."""

    if TYPE_CHECKING:

        def __getitem__(self, annotation: Annotation[T]) -> T:
            """Return the value of an annotation, with the type that it was declared with."""

    def __missing__(self, annotation: Annotation[T]) -> T:
        """Return the default of an annotation that the Ingress does not have."""
        return annotation.default

    def value_or(self, annotation: Annotation[V | None] | Annotation[V], default: V) -> V:
        """Return the value of an annotation; where the Ingress does not have it, another one, as that of a setting."""
        value: V = self.get(annotation, default)
        return value
