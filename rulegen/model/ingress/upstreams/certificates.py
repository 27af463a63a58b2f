"""Certificates, keys and password files in Secrets: parsed, checked and encoded again.

nginx rejects a whole configuration if one key does not match its certificate. Therefore only content that was parsed
here and encoded again is passed to nginx. No message contains content of a Secret.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.kube.validation.secret import secret_values

if TYPE_CHECKING:
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from rulegen.kube.objects.structs import Secret

MAX_CHAIN: Final = 20, 64 << 10
"""Maximum number of certificates, and of bytes of their PEM; chains of public CAs have at most about 10 KiB."""
MAX_AUTHORITIES: Final = 300, 512 << 10
"""The same for CA certificates; the lists of browsers have about 150 certificates and 230 KiB."""
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""A handshake with a longer key would block a worker too long: 16384 bits take about a second."""
MIN_EC_BITS: Final = 224
_UNREADABLE: Final = (ValueError, TypeError, AttributeError, OverflowError)
_WEAK_HASHES: Final = frozenset({"md5", "sha1"})
_PASSWORD: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}:[\x21-\x7e]{1,500}\Z")
_HASH: Final = re.compile(
    r"\{(?:PLAIN|SHA|SSHA)\}|\$apr1\$|\$1\$"
    r"|\$2[abxy]\$(?P<cost>0[4-9]|1[0-4])\$"
    r"|\$[56]\$(?:rounds=(?P<rounds>[0-9]{1,6})\$|(?!rounds=))"
    r"|\$y\$j[./0-9A-C][./0-9A-T]\$"
    r"|[./0-9A-Za-z]{13}(?::|\Z)"
)
"""Start of a password hash that nginx or crypt(3) supports and that takes at most about 1 s to compute.

nginx computes it in the worker, for each request with a password, and the worker serves nobody else meanwhile. bcrypt
of cost 31 takes days.
"""
SLOW_COST: Final = 13
"""From this cost on, a bcrypt hash takes more than about 0.3 s, which is reported."""
MAX_ROUNDS: Final = 700_000
_USER: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}\Z")


REPORTED_DAYS: Final = 10
"""A certificate is reported this many days before it expires, as in ingress-nginx."""


class UnusableSecretError(ValueError):
    """A Secret cannot be used for its purpose; the message contains the reason, but no content of the Secret."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as one file.

    Attributes:
        path: Path in the configuration; contains the hash of the content.
        content: Certificate, chain and key in PEM.
        names: Its DNS names in lower case, also wildcards.
        not_before, not_after: Start and end of its validity.
        responder: URL of its first OCSP responder; empty for none.
        has_alternative_names: Whether the names are subject alternative names, not the common name.
    """

    path: str
    content: bytes
    names: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    responder: str = ""
    has_alternative_names: bool = True

    def lapse(self, now: dt.datetime) -> str:
        """Return a report about its validity, if clients reject it or will reject it soon; else an empty text."""
        if now > self.not_after:
            return f"expired on {self.not_after:%Y-%m-%d}: clients will reject it"
        if now < self.not_before:
            return f"is valid from {self.not_before:%Y-%m-%d}: clients will reject it"
        return f"expires on {self.not_after:%Y-%m-%d}" if (self.not_after - now).days < REPORTED_DAYS else ""

    def covers(self, host: str, *, by_common_name: bool = True) -> bool:
        """Whether it matches a host, by name or by a wildcard for one label."""
        if not (by_common_name or self.has_alternative_names):
            return False
        _, dot, parent = host.partition(".")
        return host in self.names or bool(dot and f"*.{parent}" in self.names)


def path_of(content: bytes, suffix: str) -> str:
    """Return the path of a file with content from a Secret: the hash of the content."""
    return f"secrets/{hashlib.sha256(content).hexdigest()[:32]}.{suffix}"


def holds_certificate(secret: Secret) -> bool:
    """Whether a Secret contains a certificate or a key, readable or not."""
    values = secret_values(secret)
    return bool(values.get("tls.crt") or values.get("tls.key"))


def holds_authorities(secret: Secret) -> bool:
    """Whether a Secret contains CA certificates, readable or not."""
    return bool(secret_values(secret).get("ca.crt"))


def read_certificate(secret: Secret) -> Certificate:
    """Return the certificate and key in a TLS Secret.

    Raises:
        UnusableSecretError: They are missing, unreadable or too weak for OpenSSL, or do not belong together.
    """
    values = secret_values(secret)
    if not values.get("tls.crt") or not values.get("tls.key"):
        raise UnusableSecretError("it has no tls.crt and tls.key")
    return certificate_of(values["tls.crt"], values["tls.key"])


def certificate_of(chain: bytes, key: bytes) -> Certificate:
    """Return certificate and key as one file; raises the same errors as `read_certificate`."""
    from cryptography import x509  # noqa: PLC0415 - loads OpenSSL, which not every command needs
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    certificates = _chain(chain, "tls.crt")
    leaf = certificates[0]
    try:
        # Otherwise the library checks that the factors are prime, which takes seconds with a long key; see _fits.
        private = serialization.load_pem_private_key(key, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableSecretError("tls.key is not an unencrypted private key in PEM") from None
    encoding = serialization.Encoding.PEM
    try:
        fits = _fits(private, leaf)
        encoded_key = private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    except UnusableSecretError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError, UnsupportedAlgorithm):
        raise UnusableSecretError("its key type is not used for TLS") from None
    if not fits:
        raise UnusableSecretError("tls.key is not the key of tls.crt")
    try:
        (names, has_names), not_before, not_after = _names(leaf), leaf.not_valid_before_utc, leaf.not_valid_after_utc
        responder = _responder(leaf)
        for number, certificate in enumerate(certificates):
            _ = list(certificate.extensions), certificate.subject, certificate.issuer  # OpenSSL parses all of them too
            _check_strength(certificate, "it" if not number else f"certificate {number + 1} of its chain")
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm, *_UNREADABLE) as error:
        if isinstance(error, UnusableSecretError):
            raise
        raise UnusableSecretError("tls.crt contains a certificate with unreadable fields") from None
    content = b"".join(certificate.public_bytes(encoding) for certificate in certificates) + encoded_key
    return Certificate(path_of(content, "pem"), content, names, not_before, not_after, responder, has_names)


def _responder(leaf: x509.Certificate) -> str:
    """Return the URL of the first OCSP responder, which nginx uses; empty for none (RFC 5280, 4.2.2.1)."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import AuthorityInformationAccessOID  # noqa: PLC0415

    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return ""
    urls = (
        str(description.access_location.value)
        for description in access
        if description.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(description.access_location, x509.UniformResourceIdentifier)
    )
    return next(urls, "")


def _fits(private: PrivateKeyTypes, leaf: x509.Certificate) -> bool:
    """Whether a private key belongs to a certificate: the public keys are equal, and a signature can be verified."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa  # noqa: PLC0415

    public = leaf.public_key()
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        return False
    proof = b"proof of possession"
    try:
        if isinstance(private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
            if private.key_size > MAX_RSA_BITS:
                raise UnusableSecretError(f"its RSA key has {private.key_size} bits: at most {MAX_RSA_BITS}")
            if not _is_consistent(private):
                return False
            signature = private.sign(proof, padding.PKCS1v15(), hashes.SHA256())
            public.verify(signature, proof, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(private.sign(proof, ec.ECDSA(hashes.SHA256())), proof, ec.ECDSA(hashes.SHA256()))
        elif isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) and isinstance(
            public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
        ):
            public.verify(private.sign(proof), proof)
        else:
            raise UnusableSecretError("its key type is not used for TLS")
    except InvalidSignature:
        return False
    return True


def _is_consistent(private: RSAPrivateKey) -> bool:
    """Whether the numbers of an RSA key are consistent (RFC 8017, 3.2), so that OpenSSL can use them.

    Whether its factors are prime is tested by signing.
    """
    numbers = private.private_numbers()
    p, q, d, e = numbers.p, numbers.q, numbers.d, numbers.public_numbers.e
    if min(p, q) < 3 or p % 2 == 0 or q % 2 == 0 or p * q != numbers.public_numbers.n or not 0 < d < p * q:
        return False
    if min(p.bit_length(), q.bit_length()) < private.key_size // 4:
        return False
    if (numbers.dmp1, numbers.dmq1) != (d % (p - 1), d % (q - 1)) or numbers.iqmp * q % p != 1:
        return False
    return e > 2 and e * d % (p - 1) == 1 and e * d % (q - 1) == 1


def _names(leaf: x509.Certificate) -> tuple[tuple[str, ...], bool]:
    """Return the DNS names of a certificate in lower case, and whether they are subject alternative names.

    The common name is used only if there are no alternative names.
    """
    from cryptography import x509  # noqa: PLC0415

    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName)), True
    except x509.ExtensionNotFound:
        attributes = leaf.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
        return tuple(str(attribute.value).lower() for attribute in attributes), False


def read_authorities(secret: Secret) -> tuple[str, bytes]:
    """Return path and content of the CA certificates in a Secret's `ca.crt`.

    Raises:
        UnusableSecretError: There are none, or they are unreadable.
    """
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    content = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in authorities(secret))
    return path_of(content, "pem"), content


def authorities(secret: Secret) -> list[x509.Certificate]:
    """Return the CA certificates in a Secret's `ca.crt`; raises the same errors as `read_authorities`."""
    pem = secret_values(secret).get("ca.crt")
    if not pem:
        raise UnusableSecretError("it has no ca.crt")
    return _chain(pem, "ca.crt", MAX_AUTHORITIES)


def read_passwords(secret: Secret, kind: str) -> tuple[str, bytes]:
    """Return path and content of a password file.

    Args:
        secret: The Secret: the key `auth` with users and hashes (`auth-file`), or one key for each user (`auth-map`).
        kind: `auth-file` or `auth-map`.

    Raises:
        UnusableSecretError: There are no passwords, or a line is invalid.
    """
    values = secret_values(secret)
    if kind == "auth-map":
        lines = [_line(user, value) for user, value in sorted(values.items())]
    else:
        if "auth" not in values:
            raise UnusableSecretError('it has no key "auth"')
        try:
            lines = values["auth"].decode("ascii").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError:
            raise UnusableSecretError('its key "auth" is not a password file') from None
        lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines or not all(_PASSWORD.match(line) for line in lines):
        raise UnusableSecretError("all its lines must have the form user:hash")
    if not all(_is_quick(line.partition(":")[2]) for line in lines):
        raise UnusableSecretError("it has a hash of an unknown kind, or one that takes too long to compute")
    content = "".join(f"{line}\n" for line in lines).encode()
    return path_of(content, "htpasswd"), content


def slow_hash(content: bytes) -> str:
    """Return the slowest bcrypt hash of a password file as a text; empty if no hash blocks a worker for long."""
    hashes = (_HASH.match(line.partition(":")[2]) for line in content.decode("ascii").splitlines())
    cost = max((int(match["cost"] or 0) for match in hashes if match), default=0)
    return f"bcrypt of cost {cost}" if cost >= SLOW_COST else ""


def _is_quick(text: str) -> bool:
    match = _HASH.match(text)
    return match is not None and int(match["rounds"] or 0) <= MAX_ROUNDS


def _line(user: str, value: bytes) -> str:
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not _USER.match(user):
        raise UnusableSecretError("one of its keys is not a user name")
    return f"{user}:{text}"


def _chain(pem: bytes, key: str, most: tuple[int, int] = MAX_CHAIN) -> list[x509.Certificate]:
    from cryptography import x509  # noqa: PLC0415

    if len(pem) > most[1]:
        raise UnusableSecretError(f"{key} contains more than {most[1] >> 10} KiB")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (x509.InvalidVersion, *_UNREADABLE):
        raise UnusableSecretError(f"{key} contains no readable PEM certificate") from None
    if len(certificates) > most[0]:
        raise UnusableSecretError(f"{key} contains more than {most[0]} certificates")
    return certificates


def _check_strength(certificate: x509.Certificate, what: str) -> None:
    """Reject what OpenSSL would reject in nginx at security level 2, the default of Debian."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        raise UnusableSecretError(f"the RSA key of {what} has {public.key_size} bits: at least {MIN_RSA_BITS}")
    if isinstance(public, rsa.RSAPublicKey) and public.key_size > MAX_RSA_BITS:
        raise UnusableSecretError(f"the RSA key of {what} has {public.key_size} bits: at most {MAX_RSA_BITS}")
    if isinstance(public, ec.EllipticCurvePublicKey) and public.key_size < MIN_EC_BITS:
        raise UnusableSecretError(f"the key of {what} has {public.key_size} bits: at least {MIN_EC_BITS}")
    if what != "it" and certificate.subject == certificate.issuer:
        return  # the signature of a root certificate is not verified
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise UnusableSecretError(f"{what} has a signature of an unknown kind") from None
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        raise UnusableSecretError(f"{what} is signed with {algorithm.name.upper()}, which clients reject")
