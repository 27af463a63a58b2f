"""Certificates, keys and password files as Secrets hold them; few keys, used again and again: making one is slow."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from collections.abc import Iterable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@functools.cache
def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(number: int = 0) -> bytes:
    """Return a private key; another number is another key."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return _key(number).private_bytes(*form)


def certificate(common_name: str, names: Iterable[str] = ()) -> bytes:
    """Return a certificate of the first key, as PEM; two with the same names differ in their serial number."""
    now = dt.datetime.now(dt.UTC)
    # A common name has 64 characters at most (RFC 5280, ub-common-name).
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(_key(0).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 365 * _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names or (common_name,)]), False)
    )
    return builder.sign(_key(0), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def der(pem: bytes) -> bytes:
    """Return a certificate as it is sent over the wire."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def htpasswd(users: Mapping[str, str]) -> bytes:
    """Return a password file that nginx understands (`{SHA}`)."""
    return "".join(f"{user}:{password_hash(password)}\n" for user, password in users.items()).encode()


def password_hash(password: str) -> str:
    """Return the hash of a password as password files hold it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
