"""The default certificate of a node: created once, so that the configuration stays the same."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.files import trust
from rulegen.host.files.self_signed import make
from rulegen.host.proxy.disk.writing import hint, reason
from rulegen.safe_files import write_at

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "default.pem"
RENEW_DAYS: Final = 30
MAX_BYTES: Final = 64 << 10

__all__ = ["MAX_BYTES", "NAME", "load", "make", "store"]


def load(folder: Path) -> bytes | None:
    """Return the certificate and key of this node; None if there is none, or if it expires soon.

    Raises:
        HostError: The file exists and cannot be read, or another user could replace the folder.
    """
    from cryptography import x509  # noqa: PLC0415 - loads OpenSSL, which only an ingress needs

    try:
        with trust.folder(folder.absolute()) as home:
            try:
                content = trust.read_ours(NAME, MAX_BYTES, dir_fd=home)
            except trust.UntrustedError:
                return None  # another user may know the key: a new one is created
            except FileNotFoundError:
                return None
            except OSError as error:
                raise HostError(
                    f"{folder / NAME} cannot be read: {error.strerror}",
                    hint=f"move {folder / NAME} away: rulegen then creates a new one",
                ) from None
        left = x509.load_pem_x509_certificate(content).not_valid_after_utc - dt.datetime.now(dt.UTC)
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # damaged: a new one is created
    except trust.UntrustedError as error:
        raise HostError(f"the folder of the proxy cannot be used: {reason(error)}", hint=hint(error)) from None
    except OSError as error:
        raise HostError(
            f"the folder of the proxy, {folder}, cannot be used: {error.strerror or error}", hint=hint(error)
        ) from None
    return content if left.days > RENEW_DAYS else None


def store(folder: Path, content: bytes) -> None:
    """Write the certificate for later starts, with mode 0600.

    Raises:
        HostError: The file cannot be written.
    """
    try:
        with trust.folder(folder.absolute()) as home:
            write_at(NAME, content, 0o600, dir_fd=home)
    except OSError as error:
        raise HostError(f"{folder / NAME} cannot be written: {error.strerror or error}") from None
