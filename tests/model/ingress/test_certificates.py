"""Certificates: what nginx gets was read and checked; what cannot be used is told, and stops nobody."""

from __future__ import annotations

import datetime as dt
import random
import ssl
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.upstreams.certificates import (
    UnusableSecretError,
    certificate_of,
    read_authorities,
    read_passwords,
)
from tests.rights import needs_nginx
from tests.sizes import examples
from tests.strategies.ingresses import (
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
    tls,
    verdicts,
)

RSA = rsa.generate_private_key(65537, 2048)
EDWARDS = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CA = ec_key(7)
LEAF = certificate("site.test", signer=CA, issuer="ca.test")
ISSUER = certificate(key=CA, common_name="ca.test", is_ca=True)
WEAK_CA = rsa.generate_private_key(65537, 1024)
WEAK_ISSUER = certificate(key=WEAK_CA, signer=ec_key(8), issuer="root.test", common_name="weak.test", is_ca=True)
SHA1_ISSUER = certificate(key=CA, signer=RSA, issuer="root.test", common_name="ca.test", is_ca=True, is_sha1=True)
SHA1_ROOT = certificate(key=RSA, common_name="root.test", is_ca=True, is_sha1=True)
DSA = dsa.generate_private_key(1024)


def _bent(**changes: int) -> rsa.RSAPrivateKey:
    """Return the RSA key with some of its numbers replaced."""
    numbers_ = RSA.private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    numbers = {name: getattr(numbers_, name) for name in names} | changes
    made = rsa.RSAPrivateNumbers(**numbers, public_numbers=numbers_.public_numbers)
    return made.private_key(unsafe_skip_rsa_key_validation=True)


# name: chain, key, what is said (empty where it is used)
CASES: dict[str, tuple[bytes, bytes, str]] = {
    "ec": (certificate("site.test"), key_pem(), ""),
    "wildcard": (certificate("*.test"), key_pem(), ""),
    "common name": (certificate(common_name="site.test"), key_pem(), ""),
    "upper case": (certificate("SITE.Test"), key_pem(), ""),
    "rsa": (certificate("site.test", key=RSA), key_pem(RSA), ""),
    "edwards": (certificate("site.test", key=EDWARDS), key_pem(EDWARDS), ""),
    "chain": (LEAF + ISSUER, key_pem(), ""),
    "text around": (b"subject=/CN=x\n" + LEAF + b"\n\nissuer\n" + ISSUER, key_pem(), ""),
    "root with sha1": (LEAF + certificate("ca.test", key=CA, signer=CA, is_ca=True) + SHA1_ROOT, key_pem(), ""),
    "expired": (certificate("site.test", days=-30), key_pem(), ""),
    "chain turned round": (ISSUER + LEAF, key_pem(), "not the key"),
    "another key": (certificate("site.test"), key_pem(ec_key(1)), "not the key"),
    "another name": (certificate("other.test"), key_pem(), "not for this name"),
    "deeper wildcard": (certificate("*.site.test"), key_pem(), "not for this name"),
    "name beside": (certificate("other.test", common_name="site.test"), key_pem(), "not for this name"),
    "weak rsa": (certificate("site.test", key=WEAK_CA), key_pem(WEAK_CA), "1024"),
    "sha1": (certificate("site.test", key=RSA, is_sha1=True), key_pem(RSA), "SHA1"),
    "weak in chain": (LEAF + WEAK_ISSUER, key_pem(), "1024"),
    "sha1 in chain": (LEAF + SHA1_ISSUER, key_pem(), "SHA1"),
    "no key": (certificate("site.test"), b"", "tls.key"),
    "no certificate": (b"", key_pem(), "tls.crt"),
    "garbage": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key_pem(), "PEM"),
    "key for certificate": (key_pem(), key_pem(), "PEM"),
    "certificate for key": (certificate("site.test"), certificate("site.test"), "tls.key"),
    "long chain": (certificate("site.test") * 21, key_pem(), "more than"),
    "dsa": (certificate("site.test", key=DSA), key_pem(DSA), "type is not used"),
    "rsa that is not consistent": (certificate("site.test", key=RSA), key_pem(_bent(dmp1=3)), "not the key"),
    "rsa of another exponent": (certificate("site.test", key=RSA), key_pem(_bent(d=65539)), "not the key"),
    "many certificates": (certificate("site.test") + b"#" * (64 << 10), key_pem(), "64 KiB"),
    "exchange key": (certificate("site.test"), key_pem(x25519.X25519PrivateKey.generate()), "key"),
}


@pytest.mark.parametrize("name", CASES)
def test_which_certificate_a_host_has(name):
    chain, key, message = CASES[name]
    made = compiled(
        *WEB,
        secret("cert", tls_crt=chain, tls_key=key),
        ingress("site", rule("site.test"), tls=[tls("cert", "site.test")]),
    )
    assert ("ssl_certificate " in text_of(made)) is not message
    if message:
        assert "ssl_certificate" not in text_of(made)
        (reason,) = reported(made)
        assert reason.verdict is Verdict.DEFAULT_CERTIFICATE
        assert message in reason.message
        assert "Secret default/cert" in reason.message
    else:
        assert "ssl_certificate secrets/" in text_of(made)
        assert not reported(made)
    assert "return 308" in text_of(made)


@needs_nginx
@pytest.mark.slow
def test_nginx_takes_what_is_taken(tmp_path):
    objects = [*WEB]
    for number, name in enumerate(CASES):
        chain, key, _ = CASES[name]
        objects.append(secret(f"cert{number}", tls_crt=chain, tls_key=key))
        # No host is listed, so that a certificate for another name counts too, where it is for this one.
        objects.append(
            ingress(f"i{number}", rule("site.test"), tls=[tls(f"cert{number}", "site.test")], namespace="default")
        )
        made = compiled(*objects)
        objects.pop()
        assert refusal(made.configuration, tmp_path / str(number)) == "", name


def test_a_damaged_certificate_or_key_is_refused():
    chance = random.Random(5)
    raw = ssl.PEM_cert_to_DER_cert(certificate("site.test", "*.site.test", is_ca=True).decode())
    tries, refused = examples(2000), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(tries):
            damaged = bytearray(raw)
            damaged[chance.randrange(len(raw))] = chance.randrange(256)
            try:
                certificate_of(ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode(), key_pem())
            except UnusableSecretError as error:
                refused += 1
                message = str(error)
                assert message.isprintable()
    assert refused > tries / 3


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP192R1()])
def test_curves(curve):
    key = ec.generate_private_key(curve)
    pair = certificate("site.test", key=key), key_pem(key)
    if curve.key_size < 224:
        with pytest.raises(UnusableSecretError, match="192 bits"):
            certificate_of(*pair)
    else:
        assert certificate_of(*pair).covers("site.test")


def test_a_listed_entry_goes_before_one_that_covers():
    listed, other = certificate("site.test"), certificate("site.test", "x.test")
    made = compiled(
        *WEB,
        secret("a", tls_crt=other, tls_key=key_pem()),
        secret("b", tls_crt=listed, tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("a", "x.test"), tls("b", "site.test")]),
    )
    (path,) = made.configuration.secrets.keys() - {"secrets/00000000000000000000000000000000.pem"}
    assert made.configuration.secrets[path].content.startswith(listed)


def test_one_that_covers_is_taken_where_none_is_listed():
    made = compiled(
        *WEB,
        secret("a", tls_crt=certificate("*.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("gone"), tls("a")]),
    )
    assert "ssl_certificate secrets/" in text_of(made)


@pytest.mark.parametrize(
    ("host", "is_shared"),
    [("a.site.test", True), ("www.a.site.test", False), ("site.test", False), ("*.a.site.test", False)],
)
def test_a_name_without_tls_has_that_of_its_wildcard(host, is_shared):
    wildcard = ingress("wild", rule("*.site.test"), tls=[tls("wild", "*.site.test")])
    shared = secret("wild", tls_crt=certificate("*.site.test"), tls_key=key_pem())
    text = text_of(compiled(*WEB, shared, wildcard, ingress("site", rule(host))), host)
    assert ("ssl_certificate secrets/" in text) is is_shared
    assert ("return 308" in text) is is_shared


def test_a_name_has_its_own_tls_before_that_of_its_wildcard():
    wildcard = ingress("wild", rule("*.site.test"), tls=[tls("wild", "*.site.test")])
    shared = secret("wild", tls_crt=certificate("*.site.test"), tls_key=key_pem())
    own = ingress("site", rule("a.site.test"), tls=[tls("gone", "a.site.test")])
    text = text_of(compiled(*WEB, shared, wildcard, own), "a.site.test")
    assert "ssl_certificate " not in text
    assert "return 308" in text


def test_a_name_has_the_default_certificate_if_its_wildcard_has():
    wildcard = ingress("wild", rule("*.site.test"), tls=[tls("gone", "*.site.test")])
    text = text_of(compiled(*WEB, wildcard, ingress("site", rule("a.site.test"))), "a.site.test")
    assert "ssl_certificate " not in text
    assert "return 308" in text


def test_a_listed_host_without_secret_gets_the_default():
    made = compiled(
        *WEB,
        secret("b", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("", "site.test"), tls("b", "site.test")]),
    )
    assert "ssl_certificate " not in text_of(made)
    assert "return 308" in text_of(made)


@pytest.mark.parametrize(("hosts", "is_used"), [(("site.test",), True), ((), False), (("other.test",), False)])
def test_a_common_name_counts_for_a_listed_host_only(hosts, is_used):
    made = compiled(
        *WEB,
        secret("a", tls_crt=certificate(common_name="site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("a", *hosts)]),
    )
    assert ("ssl_certificate secrets/" in text_of(made)) is is_used


def test_a_secret_of_another_namespace_is_not_used():
    made = compiled(
        *WEB,
        secret("cert", "other", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("cert", "site.test")]),
    )
    assert verdicts(made) == {Verdict.DEFAULT_CERTIFICATE}


@pytest.mark.parametrize(
    ("content", "kind", "is_used"),
    [
        ({"auth": b"a:{SHA}x\n"}, "auth-file", True),
        ({"auth": b"# note\na:$apr1$x$y\r\n\nb:{SSHA}z\n"}, "auth-file", True),
        ({"auth": b"a:$2y$12$" + b"x" * 53}, "auth-file", True),
        ({"auth": b"a:$2y$14$" + b"x" * 53}, "auth-file", True),
        ({"auth": b"a:$2y$15$" + b"x" * 53}, "auth-file", False),
        ({"auth": b"a:$2y$31$" + b"x" * 53}, "auth-file", False),
        ({"auth": b"a:$6$salt$x\nb:$6$rounds=656000$salt$x\n"}, "auth-file", True),
        ({"auth": b"a:$6$salt$x\nb:$6$rounds=999999$salt$x\n"}, "auth-file", False),
        ({"auth": b"a:$5$rounds=999999999$salt$x\n"}, "auth-file", False),
        ({"auth": b"a:$y$j9T$salt$x\n"}, "auth-file", True),
        ({"auth": b"a:$y$jFT$salt$x\n"}, "auth-file", False),
        ({"auth": b"a:$7$FU..../....$x\n"}, "auth-file", False),
        ({"auth": b"a:rl5uaTFpiaQTs\nb:rl5uaTFpiaQTs:a note\n"}, "auth-file", False),
        ({"auth": b"a:rl5uaTFpiaQTs\nb:rl5uaTFpiaQTs:note\n"}, "auth-file", True),
        ({"auth": b"a:_zzzzsaltpassw\n"}, "auth-file", False),
        ({"auth": b"a:secret\n"}, "auth-file", False),
        ({"auth": b""}, "auth-file", False),
        ({"auth": b"\n"}, "auth-file", False),
        ({"auth": b"nobody"}, "auth-file", False),
        ({"auth": b"a:\n"}, "auth-file", False),
        ({"auth": b":x\n"}, "auth-file", False),
        ({"auth": b"a:x\x00\n"}, "auth-file", False),
        ({"auth": b"a:x y\n"}, "auth-file", False),
        ({"auth": b"\xff\xfe"}, "auth-file", False),
        ({"auth": b"a:" + b"x" * 5000}, "auth-file", False),
        ({"users": b"a:x\n"}, "auth-file", False),
        ({}, "auth-file", False),
        ({"alice": b"{SHA}x", "bob": b"{PLAIN}y\n"}, "auth-map", True),
        ({"alice": b"x\nmallory:y"}, "auth-map", False),
        ({"alice": b""}, "auth-map", False),
        ({"alice": b"\xff"}, "auth-map", False),
        ({}, "auth-map", False),
    ],
)
def test_password_files(content, kind, is_used):
    if is_used:
        _, written = read_passwords(secret("users", **content), kind)
        assert all(line.count(b":") >= 1 and b" " not in line for line in written.splitlines())
    else:
        with pytest.raises(UnusableSecretError):
            read_passwords(secret("users", **content), kind)


@pytest.mark.parametrize(("count", "is_used"), [(150, True), (301, False)])
def test_a_bundle_of_authorities_may_be_that_of_a_browser(count, is_used):
    bundle = secret("ca", ca_crt=ISSUER * count)
    if is_used:
        assert read_authorities(bundle)[1].count(b"BEGIN") == count
    else:
        with pytest.raises(UnusableSecretError, match="more than"):
            read_authorities(bundle)


@pytest.mark.parametrize(("days", "says"), [(11, ""), (9, "expires on"), (0, "expires on"), (-1, "expired on")])
def test_a_certificate_that_ends_soon_is_reported(days, says):
    end = certificate_of(certificate("site.test"), key_pem()).not_after
    made = compiled(
        *WEB,
        secret("cert", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("cert", "site.test")]),
        now=end - dt.timedelta(days=days, minutes=1),
    )
    assert [says in reason.message for reason in reported(made)] == [True] * bool(says)
    assert {reason.verdict for reason in reported(made)} <= {Verdict.NOTE}


def test_an_entry_without_hosts_is_for_all_hosts():
    made = compiled(*WEB, ingress("site", rule("site.test"), rule("b.test"), tls=[tls("gone")]))
    assert [reason.verdict for reason in reported(made)] == [Verdict.DEFAULT_CERTIFICATE] * 2
    assert "return 308" in text_of(made)
    used = compiled(
        *WEB,
        secret("cert", tls_crt=certificate("*.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("gone"), tls("cert")]),
    )
    assert reported(used) == []


@pytest.mark.parametrize(("year", "message"), [(2019, "is valid from"), (2026, ""), (2028, "expired on")])
def test_an_expired_certificate_is_served_and_reported(year, message):
    made = compiled(
        *WEB,
        secret("cert", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), tls=[tls("cert", "site.test")]),
        now=dt.datetime(year, 6, 1, tzinfo=dt.UTC),
    )
    assert "ssl_certificate secrets/" in text_of(made)
    assert [reason.message.count(message) for reason in reported(made)] == ([1] if message else [])
