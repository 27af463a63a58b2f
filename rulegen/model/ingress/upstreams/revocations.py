"""Certificate revocation lists (CRL, RFC 5280, section 5) in Secrets: parsed, checked and encoded again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.kube.validation.secret import secret_values
from rulegen.model.ingress.upstreams.certificates import MAX_AUTHORITIES, UnusableSecretError, authorities, path_of

if TYPE_CHECKING:
    from cryptography import x509

    from rulegen.kube.objects.structs import Secret

MAX_LISTS: Final = MAX_AUTHORITIES[0], 1 << 20
"""Maximum number of lists, and of bytes of their PEM; a Secret has at most 1 MiB."""
EMPTY_REVOCATIONS: Final = "ca.crl of the Secret is empty: no certificate counts as revoked"
_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----")


def read_revocations(secret: Secret) -> tuple[str, bytes] | None:
    """Return path and content of the revocation lists in a Secret's `ca.crl`; None if it has none.

    Once nginx has any list, it rejects all certificates of a CA without one: so each CA must have a list.

    Raises:
        UnusableSecretError: They cannot be read, or no CA of the Secret has signed them.
    """
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - loads OpenSSL

    pem = secret_values(secret).get("ca.crl")
    if not pem or not pem.strip():
        return None
    lists = _lists(pem)
    known = authorities(secret)  # several may have one name, as while a key is replaced by the next
    for revoked in lists:
        if not any(issuer.subject == revoked.issuer and _is_signed_by(revoked, issuer) for issuer in known):
            raise UnusableSecretError("ca.crl contains a list that no CA of ca.crt has signed")
    content = b"".join(revoked.public_bytes(Encoding.PEM) for revoked in lists)
    return path_of(content, "crl"), content


def has_empty_revocations(secret: Secret) -> bool:
    """Whether a Secret has the key for lists of revoked certificates, and nothing in it."""
    pem = secret_values(secret).get("ca.crl")
    return pem is not None and not pem.strip()


def _lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    from cryptography import x509  # noqa: PLC0415

    if len(pem) > MAX_LISTS[1]:
        raise UnusableSecretError(f"ca.crl contains more than {MAX_LISTS[1] >> 10} KiB")
    blocks = _PEM.findall(pem)
    if not blocks or len(blocks) != pem.count(b"-----BEGIN"):
        raise UnusableSecretError("ca.crl contains no readable list of revoked certificates in PEM")
    if len(blocks) > MAX_LISTS[0]:
        raise UnusableSecretError(f"ca.crl contains more than {MAX_LISTS[0]} lists")
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
        for revoked in lists:
            _ = revoked.issuer, len(revoked), revoked.last_update_utc, list(revoked.extensions)
    except (x509.InvalidVersion, x509.DuplicateExtension, ValueError, TypeError, AttributeError, OverflowError):
        raise UnusableSecretError("ca.crl contains no readable list of revoked certificates in PEM") from None
    return lists


def _is_signed_by(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        return revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type] # another kind is a TypeError
    except (UnsupportedAlgorithm, TypeError, ValueError, AttributeError):
        return False
