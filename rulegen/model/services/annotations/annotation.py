"""The declaration of an annotation of Services: name, type, modes in which it has an effect, and documentation.

If a value is invalid, a warning is given and the default applies. To add an annotation, declare it in a module beside
this one and list it in `table`. Warnings about unknown names and the table in docs/ipvs.md are derived from the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.errors import Fault
    from rulegen.kube.objects.structs import Service

T = TypeVar("T")

PREFIX: Final = "rulegen.io/"
"""Prefix of the names of rulegen's annotations. Annotations with other prefixes are ignored."""


class InvalidAnnotationError(ValueError):
    """The value of an annotation is invalid.

    Attributes:
        faults: All faults of the value; their paths start after the annotation's name.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Store the faults, at least one."""
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class ServiceAnnotation(Generic[T]):
    """One annotation of a Service; T is the type of its value.

    Attributes:
        name: The name with the prefix.
        read: Parses a text; raises InvalidAnnotationError with all faults.
        default: The value of a Service that lacks the annotation or has an invalid value.
        documentation: Valid values and their effect, for the table in docs/ipvs.md.
        otherwise: The effect of an invalid value, as the end of a warning.
        modes: The modes in which the annotation has an effect; empty for all.
    """

    __slots__ = ("default", "documentation", "modes", "name", "otherwise", "read")

    def __init__(
        self,
        name: str,
        read: Callable[[str], T],
        default: T,
        documentation: str,
        *,
        otherwise: str,
        modes: tuple[str, ...] = (),
    ) -> None:
        """Declare an annotation; `name` is without the prefix."""
        self.name, self.read, self.default = PREFIX + name, read, default
        self.documentation, self.otherwise, self.modes = documentation, otherwise, modes

    @property
    def path(self) -> str:
        """The path of the annotation in an object."""
        return f'metadata.annotations["{self.name}"]'

    def of(self, service: Service, where: str, warn: Callable[[str], None]) -> T:
        """Return the value of a Service. If it is invalid, warn about each fault and return the default."""
        text = service.metadata.annotations.get(self.name)
        if text is None:
            return self.default
        try:
            return self.read(text)
        except InvalidAnnotationError as error:
            for fault in error.faults:
                warn(f"{where}: {self.path}{fault}; {self.otherwise}")
        return self.default
