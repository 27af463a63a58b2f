"""What an annotation of a Service is: a name, a type, the modes where it has an effect, and its documentation.

An invalid value is warned of, and the default applies. To add an annotation, declare it in a module beside this one and
list it in `table`; warnings about unknown names and the table of docs/ipvs.md follow from that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.errors import Fault
    from rulegen.kube.objects.structs import Service

T = TypeVar("T")

PREFIX: Final = "rulegen.io/"
"""What the names of our annotations start with. Those of other prefixes are others', and never looked at."""


class InvalidAnnotationError(ValueError):
    """The value of an annotation cannot be used.

    Attributes:
        faults: What is wrong; their paths start behind the annotation's name.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Take at least one fault."""
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class ServiceAnnotation(Generic[T]):
    """One annotation of a Service; T is the type of its value.

    Attributes:
        name: With the prefix.
        read: Returns the value of a text; raises InvalidAnnotationError with every fault.
        default: The value where a Service does not have it, or where it is invalid.
        documentation: The cell of the table in docs/ipvs.md that says what may be written, and what it does.
        otherwise: What follows from an invalid value, as the end of a warning.
        modes: The modes where it has an effect; empty for all.
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
        """Declare an annotation; the name is given without the prefix."""
        self.name, self.read, self.default = PREFIX + name, read, default
        self.documentation, self.otherwise, self.modes = documentation, otherwise, modes

    @property
    def path(self) -> str:
        """Where it stands in an object."""
        return f'metadata.annotations["{self.name}"]'

    def of(self, service: Service, where: str, warn: Callable[[str], None]) -> T:
        """Return the value that a Service has; of an invalid one every fault is warned of, and the default returned."""
        text = service.metadata.annotations.get(self.name)
        if text is None:
            return self.default
        try:
            return self.read(text)
        except InvalidAnnotationError as error:
            for fault in error.faults:
                warn(f"{where}: {self.path}{fault}; {self.otherwise}")
        return self.default
