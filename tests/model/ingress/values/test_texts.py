"""Texts with variables: which are known in which place, what they mean, and that nothing else becomes nginx's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.backends.nginx.texts import written, written_for_log
from rulegen.languages.nginx.text import UnquotableError, quote
from rulegen.languages.nginx.tree import Interpolated
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.settings import SETTINGS
from rulegen.model.ingress.values.texts import (
    IN_LOGS,
    IN_URLS,
    OF_REQUEST,
    Capture,
    Reference,
    Subject,
    Text,
    literal,
    read_text,
)

_ESCAPED = Subject.ESCAPED_REQUEST_URI
_TAKEN = [
    ("upstream-vhost", "${service_name}.${namespace}.svc.cluster.local", {Subject.SERVICE, Subject.NAMESPACE}),
    ("upstream-vhost", "$host", {Subject.HOST}),
    ("upstream-vhost", "$http_x_forwarded_host", {Subject.HEADER}),
    ("upstream-vhost", "a.test:8080", set()),
    ("x-forwarded-prefix", "/$1", set()),
    ("x-forwarded-prefix", "/app/$2/$namespace", {Subject.NAMESPACE}),
    ("upstream-hash-by", "$realip_remote_addr", {Subject.NEIGHBOUR_ADDRESS}),
    ("upstream-hash-by", "$request_uri-${cookie_id}", {Subject.REQUEST_URI, Subject.COOKIE}),
    ("upstream-hash-by", "$BINARY_remote_addr", {Subject.CLIENT_ADDRESS_BYTES}),
    ("permanent-redirect", "https://$host$uri/x", {Subject.HOST, Subject.RAW_PATH}),
    ("permanent-redirect", "https://new.test/$1?a=$arg_a", {Subject.PARAMETER}),
    ("temporal-redirect", "$scheme://www.$host$request_uri", {Subject.SCHEME, Subject.HOST, Subject.REQUEST_URI}),
    ("temporal-redirect", "/x$is_args$args", {Subject.QUERY_MARK, Subject.QUERY}),
    ("auth-url", "https://$host/check?u=$request_uri", {Subject.HOST, Subject.REQUEST_URI}),
    ("auth-url", "https://auth.$host/check", {Subject.HOST}),
    ("auth-url", "http://a.test/$namespace/$ingress_name", {Subject.NAMESPACE, Subject.INGRESS}),
    (
        "auth-signin",
        "https://$http_host/in?rd=$escaped_request_uri",
        {Subject.HOST_HEADER, Subject.ESCAPED_REQUEST_URI},
    ),
    ("auth-signin", "https://a.test/in?rd=https://$host$request_uri", {Subject.HOST, _ESCAPED}),
    ("auth-signin", "/in?a=b", {Subject.SCHEME, Subject.HOST_HEADER}),
    ("auth-signin", "https://sso-$host$request_uri", {Subject.HOST, Subject.REQUEST_URI}),
    ("auth-request-redirect", "https://$host/back", {Subject.HOST}),
]


def _text(value: object) -> Text:
    return value if isinstance(value, Text) else value.text  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(("name", "text", "subjects"), _TAKEN)
def test_a_variable_that_is_known_and_harmless_works(name: str, text: str, subjects: set[Subject]) -> None:
    assert _text(ANNOTATIONS[name].read(text)).subjects == subjects


_REFUSED = [
    ("upstream-vhost", "$cookie_session", r"\$cookie_session"),
    ("upstream-vhost", "$nope", r"\$nope"),
    ("upstream-vhost", "$host/x", "host"),
    ("upstream-vhost", "a$", "dollar"),
    ("x-forwarded-prefix", "/$request_body", r"\$request_body"),
    ("x-forwarded-prefix", "//$1", "path"),
    ("upstream-hash-by", "$request_filename", r"\$request_filename"),
    ("permanent-redirect", "https://a.test/?c=$http_authorization", r"\$http_authorization"),
    ("permanent-redirect", "https://a.test/?c=$cookie_session", r"\$cookie_session"),
    ("permanent-redirect", "https://a.test/$escaped_request_uri", r"\$escaped_request_uri"),
    ("permanent-redirect", "https://$cookie_x/", r"\$cookie_x"),
    ("permanent-redirect", "$scheme:/$host", "URL"),
    ("permanent-redirect", "javascript://$host", "URL"),
    ("auth-url", "https://$http_host/", r"\$http_host"),
    ("auth-url", "https://a.test/?u=$escaped_request_uri", r"\$escaped_request_uri"),
    ("auth-url", "https://a.test/?u=$http_x_user", r"\$http_x_user"),
    ("auth-url", "https://a.test/$1", r"\$1"),
    ("auth-signin", "https://a.test/?c=$http_cookie", r"\$http_cookie"),
    ("auth-signin", "/in?c=$http_cookie", r"^\"/in\?c=\$http_cookie\": .* \$http_cookie"),
    ("auth-signin", "//a.test/in", "not a URL"),
    ("auth-signin", "https://a.test/?a=$escaped_request_uri&b=$escaped_request_uri", "once"),
    ("auth-signin", "https://a.test/?rd=https://$host$uri", "only as"),
    ("auth-signin", "https://a.test/?rd=/&$args", "only as"),
    ("auth-tls-error-page", "https://a.test/$namespace", "location"),
    ("auth-request-redirect", "/$1", "captures"),
]


@pytest.mark.parametrize(("name", "text", "reason"), _REFUSED)
def test_any_other_variable_is_refused_by_its_name(name: str, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ANNOTATIONS[name].read(text)


_HOSTILE = ["a\nX: 1", "a\r\nX: 1", "a;b", "a{b", "a}b", 'a"b', "a'b c", "a\\b", "a#b", "a\0b", "é", "a b"]


@pytest.mark.parametrize("name", ["upstream-vhost", "x-forwarded-prefix", "upstream-hash-by"])
@pytest.mark.parametrize("hostile", _HOSTILE)
def test_no_variable_lets_another_character_in(name: str, hostile: str) -> None:
    if name == "x-forwarded-prefix" and hostile in {"a;b", "a{b", "a}b"}:
        assert quote(written(ANNOTATIONS[name].read(f"/$1{hostile}"))) == f'"/${{capture_1}}{hostile}"'
        return
    if name == "upstream-hash-by" and hostile in {"a{b", "a}b"}:
        return
    with pytest.raises(ValueError, match=r"."):
        ANNOTATIONS[name].read(f"/$host{hostile}" if name == "x-forwarded-prefix" else f"$host{hostile}")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("t=${msec}", ("t=", Reference(Subject.TIME_MS))),
        ("$remote_addr", (Reference(Subject.CLIENT_ADDRESS),)),
        ("$HTTP_X_User", (Reference(Subject.HEADER, "x_user"),)),
        ("a", ("a",)),
        ("", ()),
    ],
)
def test_parts_say_what_a_text_means(text: str, means: tuple[object, ...]) -> None:
    assert read_text(text, OF_REQUEST).parts == means


def test_captures_are_one_digit() -> None:
    assert read_text("/$1a$12", IN_URLS, captures=True).parts == ("/", Capture(1), "a", Capture(1), "2")
    with pytest.raises(ValueError, match=r"\$1 may not be used here"):
        read_text("$1", IN_URLS)
    with pytest.raises(ValueError, match=r"\$0"):
        read_text("${0}", IN_URLS, captures=True)


def test_every_variable_has_a_word_of_nginx() -> None:
    no_words = {Subject.ESCAPED_REQUEST_URI, Subject.ESCAPED_URL, Subject.INGRESS_PATH}
    for subject in set(Subject) - no_words:
        for write in (written, written_for_log):
            made = write(Text((Reference(subject, "x"),)))
            assert isinstance(made, Interpolated), subject
    assert IN_LOGS.isdisjoint(no_words)


def test_what_a_client_can_put_a_line_break_into_ends_no_header() -> None:
    """nginx decodes paths and users, takes any name of TLS, and copies a variable into a header as it is."""
    decoded = {"uri", "document_uri", "remote_user", "request_filename", "request_body", "ssl_server_name"}
    for name in ("proxy-set-headers", "add-headers"):
        read = SETTINGS[name].read_header
        assert read is not None
        for text in ("$uri", "$document_uri", "$remote_user", "$ssl_server_name"):
            assert quote(written(read(text))).strip("${}") not in decoded
        for text in ("$request_body", "$request_filename", "$document_root", "$ssl_client_raw_cert", "cost: $5", "a $"):
            with pytest.raises(ValueError, match=r"."):
                read(text)
    for name in ("permanent-redirect", "auth-url", "auth-signin"):
        assert quote(written(_text(ANNOTATIONS[name].read("https://a.test$uri")))) == "https://a.test$request_path"


@given(st.text(max_size=60), st.booleans())
def test_a_text_is_read_or_refused_and_never_more_than_it_says(text: str, captures: bool) -> None:
    try:
        read = read_text(text, OF_REQUEST, captures=captures)
    except ValueError:
        return
    literal = "".join(part for part in read.parts if isinstance(part, str))
    assert "$" not in literal
    assert len(literal) <= len(text)
    try:
        token = quote(written(read))
    except UnquotableError:
        return
    assert not any(character < " " for character in token)


def test_what_is_the_same_for_a_location_is_put_in() -> None:
    text = read_text("$service_name.$namespace:$service_port", OF_REQUEST)
    values = {Subject.SERVICE: "web", Subject.NAMESPACE: "shop", Subject.SERVICE_PORT: "http"}
    assert text.bound(values).literal == "web.shop:http"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (literal("//evil.test"), literal("/evil.test")),
        (literal("/\\/evil.test"), literal("/evil.test")),
        (literal("/"), literal("/")),
        (literal("/a//b"), literal("/a//b")),
        (literal("https://a.test"), literal("https://a.test")),
        (Text(("//", Reference(Subject.QUERY))), Text(("/", Reference(Subject.QUERY)))),
        (Text((Reference(Subject.QUERY), "//")), Text((Reference(Subject.QUERY), "//"))),
        (Text(), Text()),
    ],
    ids=["two", "backslash", "root", "inside", "url", "variable", "variable-first", "nothing"],
)
def test_of_slashes_at_the_beginning_one_is_left(text: Text, left: Text) -> None:
    assert text.with_one_slash() == left
