"""Self-signed certificates, for hosts without one of their own."""

from __future__ import annotations

import datetime as dt
from typing import Final

COMMON_NAME: Final = "Kubernetes Ingress Controller Fake Certificate"
"""The name that ingress-nginx uses, and that monitoring recognises."""
DAYS: Final = 3650


def make(host: str = "ingress.local") -> bytes:
    """Return a new self-signed certificate for a host, with its key, in PEM."""
    from cryptography import x509  # noqa: PLC0415 - loads OpenSSL, which only an ingress needs
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
