"""The values of Secrets and ConfigMaps are read unchanged, and never shown."""

from __future__ import annotations

import base64
import io
import json
import pickle
import traceback
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import pretty_repr

from rulegen.errors import InputError, Rejected
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.structs import ConfigMap, ObjectMeta, Secret
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document, Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.validation.secret import MAX_BYTES, secret_values
from rulegen.kube.validation.validate import check
from tests.sizes import examples

PASSWORD = "hunter2 said: swordfish"
"""Contains words that no message contains by itself."""
SIGNS = ("hunter2", "swordfish", base64.b64encode(PASSWORD.encode()).decode()[:10])
KEYS = ["tls.crt", "tls.key", "auth", "a-b_C.9", ".hidden", "a..b", "a" * 253]
CLUSTER_IP = b"{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}"


def decoded(kind: str = "Secret", **content: Any) -> Any:
    content = {"metadata": {"name": "tls", "namespace": "shop"}, **content}
    result = decode(Document("x", "v1", kind, msgspec.Raw(json.dumps(content).encode())))
    assert result == decode(Document("x", "v1", kind, content))
    if isinstance(result, Decoded):
        assert check(result.object, "x") == result
    return result


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def assert_unseen(text: str) -> None:
    assert not [sign for sign in SIGNS if sign in text], text


@given(
    st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=200)), st.dictionaries(st.sampled_from(KEYS), st.text())
)
def test_values_are_unchanged_and_string_data_wins(data: dict[str, bytes], texts: dict[str, str]) -> None:
    writable = {key: text for key, text in texts.items() if text.isascii()}
    secret = decoded(data={key: encoded(value) for key, value in data.items()}, stringData=writable)
    assert secret_values(secret.object) == data | {key: text.encode() for key, text in writable.items()}
    assert secret.object.string_data == {}


def test_string_data_equals_the_data_that_the_server_stores() -> None:
    metadata = {"name": "tls", "namespace": "shop"}
    texts = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"a": "ä"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": encoded("ä".encode())}},
    ]
    world = read_world(
        [Source(f"{i}", json.dumps(manifest).encode()) for i, manifest in enumerate(texts)] + [Source("s", CLUSTER_IP)]
    )
    assert world.rejected == ()
    assert secret_values(world.secrets[ObjectName("shop", "tls")]) == {"a": "ä".encode()}


def test_values_of_a_secret_that_was_not_validated() -> None:
    assert secret_values(Secret(metadata=ObjectMeta(), data={"a": "eA=="}, string_data={"b": "y"})) == {
        "a": b"x",
        "b": b"y",
    }
    with pytest.raises(ValueError, match="padding"):
        secret_values(Secret(metadata=ObjectMeta(), data={"a": "eA"}))


@pytest.mark.parametrize("text", ["", "eA==", "e\nA=\r\n=\n", "/+8=", "AAAA"])
def test_base64(text: str) -> None:
    assert isinstance(decoded(data={"a": text}), Decoded)


@pytest.mark.parametrize(
    "text", ["eA", "eA=", "=", "====", "eA== ", " eA==", "eA==eA==", "eA===", "-_==", "e A=", "ä", "\0"]
)
def test_invalid_base64(text: str) -> None:
    assert decoded(data={"a": text}).lines() == ("Secret shop/tls: data.a: is not base64 (the value is not shown)",)


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
@pytest.mark.parametrize("key", KEYS)
def test_keys(kind: str, key: str) -> None:
    assert isinstance(decoded(kind, data={key: "AAAA"}), Decoded)


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
@pytest.mark.parametrize(
    "key", ["", ".", "..", "..a", "a/b", "a b", "a\n", "user\nroot", "ä", "80; }", "a:b", "a" * 254, "\0"]
)
def test_invalid_keys(kind: str, key: str) -> None:
    rejected = decoded(kind, data={key: "AAAA"})
    assert [fault.path for fault in rejected.faults] == ["data"]
    assert all(line.isprintable() for line in rejected.lines())


def test_the_size_limit_is_that_of_the_api_server() -> None:
    assert isinstance(decoded(data={"a": encoded(b"x" * MAX_BYTES)}), Decoded)
    assert isinstance(decoded(data={"a": encoded(b"x" * MAX_BYTES)}, stringData={"a": "x"}), Decoded)
    assert isinstance(decoded("ConfigMap", data={"a": "x" * MAX_BYTES}), Decoded)
    for rejected in (
        decoded(data={"a": encoded(b"x" * MAX_BYTES), "b": "eA=="}),
        decoded(stringData={"a": "ä" * (MAX_BYTES // 2), "b": "x"}),
        decoded("ConfigMap", data={"a": "ä" * (MAX_BYTES // 2), "b": "x"}),
    ):
        assert rejected.faults[0].message == "all values together have 1048577 bytes, more than 1048576"


def test_half_a_surrogate_pair_is_not_text() -> None:
    for broken in (
        Secret(metadata=ObjectMeta(name="a"), string_data={"b": "\ud800"}),
        ConfigMap(metadata=ObjectMeta(name="a"), data={"b": "\ud800"}),
    ):
        rejected = check(broken, "x")
        assert isinstance(rejected, Rejected)
        assert "is not Unicode text (the value is not shown)" in rejected.lines()[0]


# -- values are never shown --------------------------------------------------------------------------------------------


def test_nothing_prints_a_value() -> None:
    secret = decoded(data={"a": encoded(PASSWORD.encode())}, stringData={"b": PASSWORD})
    manifest = {"apiVersion": "v1", "kind": "Secret", **msgspec.to_builtins(secret.object)}
    world = read_world([Source("x", json.dumps(manifest).encode()), Source("y", CLUSTER_IP)])
    assert repr(secret.object) == "Secret(shop/tls)"
    content = {"metadata": {"name": "a"}, "stringData": {"b": PASSWORD}}
    for shown in (secret, secret.object, world, [secret], {"a": secret.object}, Document("x", "v1", "Secret", content)):
        assert_unseen(f"{shown!r} {shown!s} {pretty_repr(shown)}")
        console = Console(file=io.StringIO(), width=200)
        console.print(shown)
        assert_unseen(console.file.getvalue())


def test_a_traceback_that_shows_locals_shows_no_value() -> None:
    secret = decoded(stringData={"b": PASSWORD}).object
    console = Console(file=io.StringIO(), width=200)

    def fails(secret: Secret) -> None:
        raise LookupError(secret)

    try:
        fails(secret)
    except LookupError:
        console.print_exception(show_locals=True, word_wrap=True)
        assert_unseen(traceback.format_exc())
    shown = console.file.getvalue()
    assert "Secret(" in shown
    assert SIGNS[2] not in shown


def test_a_secret_survives_copying() -> None:
    secret = decoded(stringData={"b": PASSWORD}).object
    assert pickle.loads(pickle.dumps(secret)) == secret


VALUES = st.recursive(
    st.sampled_from([PASSWORD, SIGNS[0], encoded(PASSWORD.encode()), encoded(PASSWORD.encode())[:-1], PASSWORD * 9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"apiVersion": st.just("v1"), "kind": st.sampled_from(["Secret", "ConfigMap"])},
        optional={
            "metadata": st.fixed_dictionaries(
                {"name": st.just("tls")}, optional={"annotations": VALUES, "labels": VALUES}
            ),
            "data": VALUES | st.dictionaries(st.sampled_from(["a", "b\n"]), VALUES),
            "stringData": VALUES | st.dictionaries(st.sampled_from(["a", "b\n"]), VALUES),
            "immutable": VALUES,
        },
    )
)
@settings(deadline=None)
def test_no_message_contains_a_value(content: dict[str, Any]) -> None:
    for text in (json.dumps(content), yaml.safe_dump(content), yaml.safe_dump(content, default_style='"')):
        world = read_world([Source("x", text.encode()), Source("y", CLUSTER_IP)])
        assert_unseen("\n".join([*(line for rejected in world.rejected for line in rejected.lines()), *world.warnings]))
        assert_unseen(repr((world.secrets, world.rejected)))


@given(
    st.sampled_from(["stringData", "data"]),
    st.text("*&!|>%@`-?:,[]{}#'\"\\ \t", max_size=4),
    st.text("'\"]}\n *!", max_size=3),
)
@settings(deadline=None, max_examples=examples(300))
def test_no_message_about_yaml_contains_a_value(field: str, before: str, after: str) -> None:
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{field}:\n  a: {before}hunter2{after}\n"
    try:
        world = read_world([Source("x", text.encode()), Source("y", CLUSTER_IP)])
    except InputError as error:
        raise AssertionError from error
    assert_unseen("\n".join([*(line for rejected in world.rejected for line in rejected.lines()), *world.warnings]))
