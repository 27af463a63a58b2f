"""Certificates of clients: the CA that HAProxy verifies them with, and the clients that a host rejects.

HAProxy asks for a certificate in the handshake, by the name of TLS, and accepts all: the rules of the host decide, and
can so answer with the status that nginx answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.frontend import answer, put, put_text, redirect, variable
from rulegen.backends.haproxy.maps import expression_key
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.tree import is_set, log_format, matches, negated, sample, statement
from rulegen.model.ingress.ir import ClientCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine, Word
    from rulegen.model.ingress.ir import ClientAuth, Server

_REQUEST: Final = "http-request"
_OVER_TLS: Final = ("{", sample("ssl_fc"), "}")
_SUBJECT: Final = sample("ssl_c_s_dn", "", "0", "rfc2253")
_ISSUER: Final = sample("ssl_c_i_dn", "", "0", "rfc2253")
_PRESENTED: Final = ("{", sample("ssl_c_used"), "}")
_INVALID: Final = ("!{", sample("ssl_c_verify"), "0", "}")


def tls_options(server: Server) -> str:
    """Return the options of TLS of a host as in a list of certificates; empty for those of all hosts."""
    options = []
    client = server.client_auth
    if client is not None and client.ca and client.certificate is not ClientCertificate.NONE:
        options += ["verify", "optional", "ca-file", client.ca]
        options += ["crl-file", client.revoked] if client.revoked else []
    if server.ciphers:
        options += ["ciphers", server.ciphers]
    return f"[{' '.join(options)}]" if options else ""


def client_lines(client: ClientAuth) -> Iterator[ConfigLine]:
    """Yield the lines that reject clients as nginx does, and that pass fields of the certificate to backends."""
    if not client.ca:
        yield answer(403)
        return
    if client.certificate is not ClientCertificate.NONE:
        # The certificate belongs to the name in the handshake, so no other host is served over this connection.
        yield put("sni", sample("ssl_fc_sni").then("lower"))
        yield answer(421, when=(*_OVER_TLS, "!{", variable("host").then("strcmp", "txn.sni"), "eq", "0", "}"))
    if client.certificate is ClientCertificate.REQUIRED:
        yield _rejected(client, *_OVER_TLS, *negated(_PRESENTED))
    if client.certificate in {ClientCertificate.REQUIRED, ClientCertificate.OPTIONAL}:
        yield _rejected(client, *_OVER_TLS, *_PRESENTED, *_INVALID)
    if client.match:
        pattern = expression_key(client.match, ignores_case=False)
        yield put_text("subject", log_format(_SUBJECT))
        yield answer(403, when=negated(matches(variable("subject"), "reg", pattern)))


def _rejected(client: ClientAuth, *when: Word) -> ConfigLine:
    if client.error_page:
        return redirect(302, written(client.error_page), when=when)
    return answer(400, when=when)


def client_headers(client: ClientAuth | None) -> Iterator[ConfigLine]:
    """Yield the headers about the certificate; clients cannot send them."""
    if client is None:
        return
    yield put_text("client_verify", log_format("NONE"), when=_OVER_TLS)
    yield put_text("client_verify", log_format("SUCCESS"), when=_PRESENTED)
    yield put_text("client_verify", log_format("FAILED"), when=(*_PRESENTED, *_INVALID))
    for name, value in (
        ("ssl-client-verify", variable("client_verify")),
        ("ssl-client-subject-dn", _SUBJECT),
        ("ssl-client-issuer-dn", _ISSUER),
    ):
        yield statement(_REQUEST, "del-header", name)
        yield statement(_REQUEST, "set-header", name, log_format(value), when=is_set(value))
    yield statement(_REQUEST, "del-header", "ssl-client-cert")
    if client.pass_certificate:
        certificate = sample("ssl_c_der").then("base64").then("lua.rulegen_pem")
        yield statement(_REQUEST, "set-header", "ssl-client-cert", log_format(certificate), when=_PRESENTED)
