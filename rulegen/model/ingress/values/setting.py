"""What a setting is: a field of `Settings` with a type, a reader, a default and documentation, declared in one place.

Reading the ConfigMap, the table of docs/ingress.md and the warnings about keys follow from the declarations. To add a
setting, add a field to `rulegen.model.ingress.values.settings.Settings`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.values.texts import Text

T = TypeVar("T")

METADATA: Final = "setting"
"""The key of a field's metadata."""
_LONG: Final = 100
"""Characters of a default that the documentation does not repeat."""


class PartialValueError(ValueError):
    """A part of a text cannot be read, and the rest holds.

    Attributes:
        value: The rest.
    """

    def __init__(self, value: object, message: str) -> None:
        super().__init__(message)
        self.value = value


class SettingGuard(enum.Enum):
    """Whom a setting guards: where it cannot be read, they are closed."""

    NOTHING = ""
    ALL = "all Ingresses answer 503"
    WITHOUT_ALLOWED = "Ingresses without an allow list of their own answer 503"
    WITHOUT_DENIED = "Ingresses without a deny list of their own answer 503"
    WITHOUT_AUTH = "Ingresses that do not opt out and have no auth-url answer 503"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one key of the ConfigMap is read.

    Attributes:
        read: Returns the value of a text; raises ValueError with what is wrong and what was expected.
        default: The cell of the table in docs/ingress.md with the default.
        documentation: The cell that says what may be written, and what it does.
        guards: Whom it keeps requests from: an invalid value closes them.
        other_name: Another name of the key; empty for none.
        read_header: Returns the value of a header, where it names another ConfigMap, whose keys are headers.
    """

    read: Callable[[str], Any]
    default: str
    documentation: str = ""
    guards: SettingGuard = SettingGuard.NOTHING
    other_name: str = ""
    read_header: Callable[[str], Text] | None = None


def setting(
    read: Callable[[str], T],
    default: str,
    documentation: str = "",
    *,
    guards: SettingGuard = SettingGuard.NOTHING,
    other_name: str = "",
) -> T:
    """Return a field of `Settings` whose default is written as in a ConfigMap."""
    shown = f"`{default}`" if len(default) <= _LONG else "a long list"
    described = Setting(read=read, default=shown, documentation=documentation, guards=guards, other_name=other_name)
    return _field(read(default), described)


def setting_of(
    read: Callable[[str], T],
    value: T,
    documentation: str = "",
    *,
    guards: SettingGuard = SettingGuard.NOTHING,
    other_name: str = "",
) -> T:
    """Return a field of `Settings` whose default no text can say, or takes long to read."""
    described = Setting(
        read=read,
        default="a long list" if value else "—",
        documentation=documentation,
        guards=guards,
        other_name=other_name,
    )
    return _field(value, described)


def headers_of_map(read_header: Callable[[str], Text], documentation: str) -> tuple[tuple[str, Text], ...]:
    """Return a field of `Settings` with headers; its key names the ConfigMap that has them."""
    described = Setting(read=readers.reference, default="—", documentation=documentation, read_header=read_header)
    return _field((), described)


def _field(value: T, described: Setting) -> T:
    """Return a dataclass field; to the type checker it is its default, so that reader and field must agree."""
    return field(default=value, metadata={METADATA: described})
