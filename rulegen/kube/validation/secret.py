"""Validates Secrets and ConfigMaps, and decodes the values of Secrets. No message contains a value."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.structs import ConfigMap, Secret
    from rulegen.kube.validation.findings import Findings

MAX_BYTES: Final = 1 << 20
"""Maximum size of all values of one object."""

_KEY: Final = re.compile(r"(?!\.\.|\.\Z)[-._a-zA-Z0-9]{1,253}\Z")


def check_secret(secret: Secret, findings: Findings) -> Secret:
    """Return the Secret with `stringData` merged into `data`, as in the API server; record all faults."""
    _check_keys("data", secret.data, findings)
    size = 0
    for key, text in secret.data.items():
        try:
            size += len(_decoded(text)) if key not in secret.string_data else 0
        except ValueError:
            findings.fault(f"data.{printable(key)}", "is not base64 (the value is not shown)")
    if not secret.string_data:
        _check_size("data", size, findings)
        return secret
    _check_keys("stringData", secret.string_data, findings)
    data = dict(secret.data)
    for key, text in secret.string_data.items():
        try:
            value = text.encode()
        except UnicodeEncodeError:
            findings.fault(f"stringData.{printable(key)}", "is not Unicode text (the value is not shown)")
            continue
        size += len(value)
        data[key] = binascii.b2a_base64(value, newline=False).decode("ascii")
    _check_size("stringData", size, findings)
    return replace(secret, data=data, string_data={})


def secret_values(secret: Secret) -> dict[str, bytes]:
    """Return the decoded values of a Secret by key.

    Raises:
        ValueError: A value is not base64. This cannot happen for a validated Secret.
    """
    values = {key: _decoded(text) for key, text in secret.data.items()}
    return values | {key: text.encode() for key, text in secret.string_data.items()}


def check_config_map(config_map: ConfigMap, findings: Findings) -> ConfigMap:
    """Return the ConfigMap; record all faults."""
    _check_keys("data", config_map.data, findings)
    size = 0
    for key, text in config_map.data.items():
        try:
            size += len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError:
            findings.fault(f"data.{printable(key)}", "is not Unicode text (the value is not shown)")
    _check_size("data", size, findings)
    return config_map


def _decoded(text: str) -> bytes:
    """Return the bytes in a base64 text (RFC 4648, section 4). Line ends are ignored, as in Go.

    Raises:
        ValueError: The text is not base64.
    """
    if "\n" in text or "\r" in text:
        text = text.replace("\r", "").replace("\n", "")
    return binascii.a2b_base64(text, strict_mode=True)


def _check_keys(path: str, keys: Iterable[str], findings: Findings) -> None:
    for key in keys:
        if not _KEY.match(key):
            expected = 'letters, digits, "-", "_" and ".", at most 253 characters, not ".." at its start'
            findings.fault(path, f"{quoted(key)} is not a valid key: {expected}")


def _check_size(path: str, size: int, findings: Findings) -> None:
    if size > MAX_BYTES:
        findings.fault(path, f"all values together have {size} bytes, more than {MAX_BYTES}")
