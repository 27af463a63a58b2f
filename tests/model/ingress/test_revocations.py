"""Lists of revoked certificates: who is on one is refused; what is no list of the CA lets nobody in."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    NAMED,
    WEB,
    certificate,
    compiled,
    ec_key,
    ingress,
    key_pem,
    refusal,
    reported,
    rule,
    secret,
    text_of,
)

CA = certificate("ca.test", is_ca=True)


def revocations(*serials: int, issuer: str = "ca.test", key: int = 0) -> bytes:
    """Return a list of revoked certificates in PEM."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now)
    builder = builder.next_update(now + dt.timedelta(days=3650))
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(ec_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def site_with(annotations, **keys):
    return compiled(*WEB, *NAMED, secret("mine", **keys), ingress("site", rule("site.test"), annotations=annotations))


NO_LISTS = [
    b"no list",
    CA,
    key_pem(),
    revocations(7, issuer="other.test"),
    revocations(7, key=1),
    revocations(7) + CA,
    revocations(7)[:-40],
    revocations(7).replace(b"M", b"N", 1),
    b"\x00" * 100,
    b"-----BEGIN X509 CRL-----\n;}\n-----END X509 CRL-----\n",
    revocations() * 4000,
]
CLIENTS = {"auth-tls-secret": "mine"}
BACKENDS = {"proxy-ssl-secret": "mine", "proxy-ssl-verify": "on", "backend-protocol": "HTTPS"}


@needs_nginx
@pytest.mark.parametrize(
    ("annotations", "directive"),
    [
        (CLIENTS, "ssl_crl"),
        (BACKENDS, "proxy_ssl_crl"),
        ({**BACKENDS, "backend-protocol": "GRPCS"}, "grpc_ssl_crl"),
    ],
)
@pytest.mark.parametrize("lists", [revocations(7), revocations() + revocations(8)], ids=["of-one", "of-two"])
def test_nginx_takes_the_lists_that_a_secret_has(annotations, directive, lists, tmp_path):
    made = site_with(annotations, ca_crt=CA, ca_crl=lists)
    assert not [reason for reason in reported(made) if reason.verdict.deviates]
    assert f" {directive} secrets/" in text_of(made)
    assert refusal(made.configuration, tmp_path / "nginx") == ""


def test_another_list_is_another_file_so_that_nginx_reads_it():
    before, after = (text_of(site_with(CLIENTS, ca_crt=CA, ca_crl=revocations(number))) for number in (7, 8))
    assert before != after


@pytest.mark.parametrize("annotations", [CLIENTS, BACKENDS])
@pytest.mark.parametrize("lists", NO_LISTS, ids=map(str, range(len(NO_LISTS))))
def test_what_is_no_list_of_the_ca_closes(annotations, lists):
    made = site_with(annotations, ca_crt=CA, ca_crl=lists)
    assert "_pass " not in text_of(made)
    assert Verdict.CLOSED in {reason.verdict for reason in reported(made)}
    assert not any("crl" in path for path in made.configuration.secrets)


@pytest.mark.parametrize("lists", [b"", b" \n"])
def test_an_empty_key_is_no_list_and_is_reported(lists):
    made = site_with(CLIENTS, ca_crt=CA, ca_crl=lists)
    assert not [reason for reason in reported(made) if reason.verdict.deviates]
    assert any("ca.crl of the Secret is empty" in reason.message for reason in reported(made))
    assert "ssl_crl" not in text_of(made)


@pytest.mark.parametrize("key", [0, 1])
def test_of_two_authorities_of_one_name_each_may_sign_the_list(key):
    pair = CA + certificate("ca.test", is_ca=True, key=ec_key(1))
    made = site_with(CLIENTS, ca_crt=pair, ca_crl=revocations(7, key=key))
    assert "ssl_crl" in text_of(made)
    assert not [reason for reason in reported(made) if reason.verdict.deviates]
