"""A certificate for the demo: created at run time, trusted only by the demo's client, and deleted with the demo."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

_VALID = timedelta(days=30)


def make_certificate(name: str) -> tuple[bytes, bytes]:
    """Return a certificate for a host that signs itself, and its key, both as PEM."""
    from cryptography import x509  # noqa: PLC0415 - takes long, and help needs none
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def secret_manifest(name: str, certificate: bytes, key: bytes) -> str:
    """Return a Secret of the namespace default with a certificate, as a manifest."""
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(key).decode()},
    }
    return json.dumps(document)
