"""The default certificate of a node: created once, so that the configuration stays the same."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.nginx.disk import trust
from rulegen.host.nginx.disk.writing import hint, reason
from rulegen.safe_files import write_at

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "default.pem"
COMMON_NAME: Final = "Kubernetes Ingress Controller Fake Certificate"
"""The name that ingress-nginx uses, and that monitoring recognises."""
DAYS: Final = 3650
RENEW_DAYS: Final = 30
MAX_BYTES: Final = 64 << 10


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
        raise HostError(f"the folder of nginx cannot be used: {reason(error)}", hint=hint(error)) from None
    except OSError as error:
        raise HostError(
            f"the folder of nginx, {folder}, cannot be used: {error.strerror or error}", hint=hint(error)
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


def make(host: str = "ingress.local") -> bytes:
    """Return a new self-signed certificate for a host, with its key, in PEM."""
    from cryptography import x509  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(x509.oid.NameOID.ORGANIZATION_NAME, "Acme Co"),
            x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, COMMON_NAME),
        ]
    )
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(encoding) + private
