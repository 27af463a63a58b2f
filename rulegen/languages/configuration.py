"""A complete configuration of a proxy: the files of one release by path, and the digest that is its name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRETS: Final = "secrets/"
"""Where certificates, keys and password files lie: paths that start so are never shown and never world-readable."""


@dataclass(frozen=True, slots=True)
class SecretContent:
    """A file whose content is never shown.

    Attributes:
        content: Its bytes.
        for_workers: Whether workers read it while they serve, as nginx's do a password file, beside the master.
    """

    content: bytes = field(repr=False)
    for_workers: bool = False


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a proxy serves with.

    Attributes:
        files: Text by path.
        secrets: Secret files by path, all under `SECRETS`.
        digest: Names this configuration; new workers answer it.
    """

    files: Mapping[str, str]
    secrets: Mapping[str, SecretContent] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    digest: str = ""


def digest_of(files: Mapping[str, str], secrets: Mapping[str, SecretContent]) -> str:
    """Return the digest of files: 32 hexadecimal digits, equal for equal bytes whatever the order."""
    state = hashlib.sha256()
    for path in sorted(files):
        text = files[path].encode()
        state.update(f"{path}\0{len(text)}\0".encode() + text)
    for path in sorted(secrets):
        content = secrets[path].content
        state.update(f"{path}\0{len(content)}\0".encode() + content)
    return state.hexdigest()[:32]
