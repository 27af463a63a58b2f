"""Declaration of annotations: name, type, effect of an invalid value, and documentation, in one place.

The reader of annotations, the tables in docs/ingress.md, the references to Secrets and ConfigMaps and the warnings use
these declarations. To add an annotation, declare it in the module of its subject in this folder; `table` collects it.
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
    """The effect of an invalid value, in order of severity."""

    IGNORE = Verdict.IGNORED
    """The default applies."""
    CLOSE = Verdict.CLOSED
    """The paths of the Ingress answer 503, because without the annotation they would be open to everybody."""
    REJECT = Verdict.REJECTED
    """Nothing of the Ingress is served, because the target of its requests is unknown."""


IGNORE: Final = InvalidValue.IGNORE
CLOSE: Final = InvalidValue.CLOSE
REJECT: Final = InvalidValue.REJECT
NO_NAMES: Final[tuple[str, ...]] = ()
NO_NETWORKS: Final[tuple[Network, ...]] = ()
_WEIGHTS: Final = {policy: weight for weight, policy in enumerate(InvalidValue)}


def gravest(policy: InvalidValue, other: InvalidValue) -> InvalidValue:
    """Return the more severe of two effects."""
    return max(policy, other, key=_WEIGHTS.__getitem__)


class Annotation(Generic[T]):
    """Declaration of one annotation; T is the type of its value.

    Attributes:
        name: Name without the prefix.
        read: Converts the text to the value. Raises ValueError with the fault and the expected form.
        documentation: Allowed values, for the table in docs/ingress.md.
        invalid: Effect of an invalid value.
        default: Value for an Ingress without this annotation.
        refers_to: Kind of the object that the value names, which is then requested from the API server.
        is_exact: Whether spaces around the text belong to it. Otherwise they are removed.
        only_with: The only engine that applies it; empty if all do.
    """

    __slots__ = ("default", "documentation", "invalid", "is_exact", "name", "only_with", "read", "refers_to")

    name: str
    read: Callable[[str], T]
    documentation: str
    invalid: InvalidValue
    default: T
    refers_to: ReferencedKind
    is_exact: bool
    only_with: str

    @overload
    def __init__(
        self: Annotation[V | None],
        name: str,
        read: Callable[[str], V],
        documentation: str,
        invalid: InvalidValue = ...,
        *,
        refers_to: ReferencedKind = ...,
        is_exact: bool = ...,
        only_with: str = ...,
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
        refers_to: ReferencedKind = ...,
        is_exact: bool = ...,
        only_with: str = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        read: Callable[[str], Any],
        documentation: str,
        invalid: InvalidValue = IGNORE,
        *,
        default: Any = None,
        refers_to: ReferencedKind = "",
        is_exact: bool = False,
        only_with: str = "",
    ) -> None:
        """Declare an annotation; without a default, the value of an absent one is None."""
        self.name, self.read, self.documentation, self.invalid = name, read, documentation, invalid
        self.default, self.refers_to, self.is_exact = default, refers_to, is_exact
        self.only_with = only_with

    def __repr__(self) -> str:
        """Return its name, for messages of failed tests."""
        return f"Annotation({self.name})"


class AnnotationValues(dict[Annotation[Any], Any]):
    """The valid annotations of an Ingress with their values; an absent annotation has its default."""

    if TYPE_CHECKING:

        def __getitem__(self, annotation: Annotation[T]) -> T:
            """Return the value of an annotation, with its declared type."""

    def __missing__(self, annotation: Annotation[T]) -> T:
        """Return the default of an absent annotation."""
        return annotation.default

    def value_or(self, annotation: Annotation[V | None] | Annotation[V], default: V) -> V:
        """Return the value of an annotation; `default`, for example a setting, if the Ingress does not have it."""
        value: V = self.get(annotation, default)
        return value
