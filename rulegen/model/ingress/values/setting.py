"""Declaration of settings: type, reader, default and documentation of a field of `Settings`, in one place.

The reader of the ConfigMap, the table in docs/ingress.md and the warnings about keys use these declarations. To add a
setting, add a field to `rulegen.model.ingress.values.settings.Settings`.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.values.texts import Text

T = TypeVar("T")

METADATA: Final = "setting"
"""Key of a declaration in the metadata of its field."""
_LONG: Final = 100
"""Maximum length of a default that is shown in the documentation."""


class PartialValueError(ValueError):
    """A part of a text is invalid; the rest applies.

    Attributes:
        value: The value of the rest.
    """

    def __init__(self, value: object, message: str) -> None:
        super().__init__(message)
        self.value = value


class SettingGuard(enum.Enum):
    """The Ingresses that a setting protects. They are closed (503) if it cannot be read."""

    NOTHING = ""
    ALL = "all Ingresses answer 503"
    WITHOUT_ALLOWED = "Ingresses without an allow list of their own answer 503"
    WITHOUT_DENIED = "Ingresses without a deny list of their own answer 503"
    WITHOUT_AUTH = "Ingresses that do not opt out and have no auth-url answer 503"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Declaration of one key of the ConfigMap.

    Attributes:
        read: Converts the text to the value. Raises ValueError with the fault and the expected form.
        default: Default in the table of docs/ingress.md.
        documentation: Description in the table of docs/ingress.md.
        guards: The Ingresses that an invalid value closes, because the setting protects them.
        other_name: Alternative name of the key; empty for none.
        may_be_empty: Whether an empty text is a value. For other keys, it counts as absent.
        read_header: Converts the value of a header, if the key names another ConfigMap whose keys are headers.
    """

    read: Callable[[str], Any]
    default: str
    documentation: str = ""
    guards: SettingGuard = SettingGuard.NOTHING
    other_name: str = ""
    may_be_empty: bool = False
    read_header: Callable[[str], Text] | None = None


def setting(
    read: Callable[[str], T],
    default: str,
    documentation: str = "",
    *,
    guards: SettingGuard = SettingGuard.NOTHING,
    other_name: str = "",
    may_be_empty: bool = False,
) -> T:
    """Return a field of `Settings`; its default is written as in a ConfigMap."""
    described = Setting(
        read=read,
        default=f"`{default}`" if len(default) <= _LONG else "a long list",
        documentation=documentation,
        guards=guards,
        other_name=other_name,
        may_be_empty=may_be_empty,
    )
    return _field(read(default), described)


def setting_of(
    read: Callable[[str], T],
    value: T,
    documentation: str = "",
    *,
    guards: SettingGuard = SettingGuard.NOTHING,
    other_name: str = "",
) -> T:
    """Return a field of `Settings` whose default cannot be written in a ConfigMap, or takes long to read."""
    described = Setting(
        read=read,
        default="a long list" if value else "—",
        documentation=documentation,
        guards=guards,
        other_name=other_name,
    )
    return _field(value, described)


def headers_of_map(read_header: Callable[[str], Text], documentation: str) -> tuple[tuple[str, Text], ...]:
    """Return a field of `Settings` with headers; its key names a ConfigMap with them."""
    described = Setting(read=readers.reference, default="—", documentation=documentation, read_header=read_header)
    return _field((), described)


def _field(value: T, described: Setting) -> T:
    """Return a dataclass field. Its declared type is that of the default, so mypy compares reader and field."""
    return field(default=value, metadata={METADATA: described})
