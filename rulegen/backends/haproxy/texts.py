"""Texts with variables as HAProxy's formats: only this module chooses the expression for a part of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.haproxy.text import UnwritableError
from rulegen.languages.haproxy.tree import SampleExpression, log_format, sample
from rulegen.model.ingress.values.texts import Capture, Reference, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.languages.haproxy.tree import LogFormat
    from rulegen.model.ingress.values.texts import Part, Text

_EXPRESSIONS: Final[Mapping[Subject, SampleExpression]] = {
    Subject.QUERY: sample("query"),
    Subject.PATH: sample("var", "txn.key"),
    Subject.RAW_PATH: sample("var", "txn.raw_path"),
    Subject.REQUEST_URI: sample("var", "txn.request_uri"),
    Subject.SCHEME: sample("var", "txn.own_scheme"),
    Subject.HOST: sample("var", "txn.host"),
    Subject.HOST_HEADER: sample("var", "txn.this_host"),
    Subject.OUTSIDE_HOST: sample("var", "txn.best_host"),
    Subject.OUTSIDE_SCHEME: sample("var", "txn.scheme"),
    Subject.OUTSIDE_PORT: sample("var", "txn.port"),
    Subject.METHOD: sample("method"),
    Subject.REQUEST_ID: sample("var", "txn.id"),
    Subject.CLIENT_ADDRESS: sample("src"),
    Subject.CLIENT_PORT: sample("src_port"),
    Subject.NEIGHBOUR_ADDRESS: sample("var", "txn.neighbour"),
    Subject.SERVER_ADDRESS: sample("dst"),
    Subject.SERVER_PORT: sample("dst_port"),
    Subject.CONTENT_TYPE: sample("req.fhdr", "content-type"),
    Subject.CONTENT_LENGTH: sample("req.fhdr", "content-length"),
    Subject.TLS_PROTOCOL: sample("ssl_fc_protocol"),
    Subject.TLS_CIPHER: sample("ssl_fc_cipher"),
    Subject.HOSTNAME: sample("hostname"),
    Subject.SCRIPT: sample("var", "txn.script"),
    Subject.ESCAPED_REQUEST_URI: sample("var", "txn.request_uri").then("lua.rulegen_escape"),
    Subject.ESCAPED_URL: (
        sample("var", "txn.scheme").then("concat", "://", "txn.this_host", "").then("concat", "", "txn.request_uri", "")
    ).then("lua.rulegen_escape"),
}
"""The expressions for properties of a request. None can have a line break; for the decoded path, its key is used."""

_FAMILIES: Final[Mapping[Subject, str]] = {
    Subject.HEADER: "req.fhdr",
    Subject.COOKIE: "req.cook",
    Subject.PARAMETER: "url_param",
}


def written(text: Text) -> LogFormat:
    """Return a text as a format.

    Raises:
        UnwritableError: HAProxy has no expression for one of its variables.
    """
    return log_format(*(part if isinstance(part, str) else _expression(part) for part in text.parts))


def _expression(part: Reference | Capture) -> SampleExpression:
    if isinstance(part, Capture):
        return sample("var", f"txn.capture{part.number}")
    if (family := _FAMILIES.get(part.subject)) is not None:
        name = part.name.replace("_", "-") if part.subject is Subject.HEADER else part.name
        return sample(family, name)
    if (expression := _EXPRESSIONS.get(part.subject)) is None:
        raise UnwritableError(f"HAProxy has no expression for {part.subject.value!r}")
    return expression


def captures(*texts: Text) -> list[int]:
    """Return the numbers of the captures that texts have."""
    parts: list[Part] = [part for text in texts for part in text.parts]
    return sorted({part.number for part in parts if isinstance(part, Capture)})
