"""Certificates that lead to a CA, with their keys, and the Secrets that hold them."""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration.ingress import objects
from integration.ingress.objects import Document

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate, those that lead to it, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.key.private_bytes(*form)

    @property
    def der(self) -> bytes:
        """The certificate as it is sent."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def whole(self) -> bytes:
        """All, in one file."""
        more = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in self.chain)
        return self.pem + more + self.key_pem


@functools.cache
def pair(name: str, issuer: Pair | None = None, *, names: tuple[str, ...] = (), age_days: int = 1) -> Pair:
    """Return the certificate of a name, by an issuer or by itself; one made before comes again."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = dt.datetime.now(dt.UTC) - age_days * _DAY
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=name.startswith("ca"), path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names]), False)
    made = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    if issuer is None or issuer.certificate.issuer == issuer.certificate.subject:
        return Pair(made, key)
    return Pair(made, key, (issuer.certificate, *issuer.chain))


def tls_secret(name: str, made: Pair, authority: Pair | None = None) -> Document:
    """Return a Secret with a certificate, and with a CA beside it."""
    data = {"tls.crt": made.pem, "tls.key": made.key_pem}
    if authority is not None:
        data["ca.crt"] = authority.pem
    return objects.secret(name, "kubernetes.io/tls", data)


def authority_secret(name: str, *made: Pair) -> Document:
    """Return a Secret with CAs alone."""
    return objects.secret(name, "Opaque", {"ca.crt": b"".join(certificate.pem for certificate in made)})


def revocations(issuer: Pair, *revoked: Pair) -> bytes:
    """Return an issuer's list of revoked certificates, in PEM."""
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject).last_update(now - _DAY)
    builder = builder.next_update(now + 30 * _DAY)
    for made in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(made.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - _DAY).build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def site_secret(host: str) -> Document:
    """Return a Secret for a host, called as it."""
    return tls_secret(host, pair(host, names=(host,)))
