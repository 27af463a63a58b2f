"""Texts are split into documents, each with its position."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rulegen.errors import Rejected
from rulegen.kube.reading.documents import Document, Source, read_documents


def read(text: str, name: str = "x.yaml") -> list[Any]:
    contents = []
    for document in read_documents(Source(name, text.encode())):
        if isinstance(document, Rejected):
            contents.append(document.lines()[0])
        else:
            content = (
                msgspec.json.decode(document.content) if isinstance(document.content, msgspec.Raw) else document.content
            )
            contents.append(
                (document.source, f"{document.api_version} {document.kind}", content.get("metadata", {}).get("name"))
            )
    return contents


A = "{apiVersion: v1, kind: Node, metadata: {name: a}}"
JSON_A = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}'
JSON_BARE = '{"metadata": {"name": "a"}}'

TEXTS = [
    # what                 name      text                                    documents
    ("yaml", "x.yaml", f"--- {A}\n--- {A}\n", [("x.yaml:2", "v1 Node", "a"), ("x.yaml:3", "v1 Node", "a")]),
    ("flow yaml", "x", A, [("x:1", "v1 Node", "a")]),
    ("flow yaml twice", "x", f"{A}\n---\n{A}", [("x:1", "v1 Node", "a"), ("x:3", "v1 Node", "a")]),
    ("json", "x.json", JSON_A, [("x.json", "v1 Node", "a")]),
    ("json after blanks", "x", f"\n\t {JSON_A}\n ", [("x", "v1 Node", "a")]),
    ("json one after the other", "x", f"{JSON_A}\n{JSON_A}", [("x:1", "v1 Node", "a"), ("x:2", "v1 Node", "a")]),
    ("json between dashes", "x", f"---\n{JSON_A}\n---\n{JSON_A}", [("x:2", "v1 Node", "a"), ("x:4", "v1 Node", "a")]),
    ("json, then dashes", "x", f"{JSON_A}\n---\n{JSON_A}", [("x:1", "v1 Node", "a"), ("x:3", "v1 Node", "a")]),
    (
        "List",
        "x",
        f"apiVersion: v1\nitems:\n- {A}\n-\n  {A}\nkind: List\n",
        [("x:3", "v1 Node", "a"), ("x:5", "v1 Node", "a")],
    ),
    (
        "json List",
        "x",
        '{"apiVersion": "v1", "kind": "List", "items": [' + f"{JSON_A}, {JSON_A}]}}",
        [("x: items[0]", "v1 Node", "a"), ("x: items[1]", "v1 Node", "a")],
    ),
    (
        "typed list",
        "x",
        '{"apiVersion": "v1", "kind": "NodeList", "items": [' + f"{JSON_BARE}, {JSON_A}]}}",
        [("x: items[0]", "v1 Node", "a"), ("x: items[1]", "v1 Node", "a")],
    ),
    (
        "typed list of a kind of its own",
        "x",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n- metadata: {name: a}\n",
        [("x:4", "discovery.k8s.io/v1 EndpointSlice", "a")],
    ),
    (
        "List in a List",
        "x",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: PodList\n  items: [{metadata: {name: a}}]\n",
        [("x:4: items[0]", "v1 Pod", "a")],
    ),
    ("empty List", "x", "{apiVersion: v1, kind: List, items: []}", []),
    ("List without items", "x", '{"apiVersion": "v1", "kind": "List"}', []),
    ("list with null items", "x", '{"apiVersion": "v1", "kind": "ServiceList", "items": null}', []),
    ("a kind that ends like a list", "x", "{apiVersion: a/v1, kind: AllowList}", [("x:1", "a/v1 AllowList", None)]),
    ("empty documents", "x", "---\n---\n# nothing\n---\n~\n", []),
    ("nothing", "x", "", []),
    (
        "halves of characters",
        "x.json",
        r'[{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a\ud800\ud83d\ude00\\ud800"}}]'[1:-1],
        [("x.json", "v1 Node", "a\ufffd\U0001f600\\ud800")],
    ),
    ("byte order mark", "x", f"\ufeff{A}", [("x:1", "v1 Node", "a")]),
    ("a kind nobody knows", "x", "{apiVersion: apps/v1, kind: Deployment}", [("x:1", "apps/v1 Deployment", None)]),
]


@pytest.mark.parametrize(("name", "text", "documents"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
def test_documents(name: str, text: str, documents: Any) -> None:
    assert read(text, name) == documents


def test_names_of_files_are_untrusted_too() -> None:
    (fault,) = read("a: [", "x\n\u202e.yaml")
    assert fault.startswith(r"x\n\u202e.yaml:2: not YAML")


def test_json_stays_text_until_it_is_typed() -> None:
    (document,) = read_documents(Source("x", JSON_A.encode()))
    assert isinstance(document, Document)
    assert isinstance(document.content, msgspec.Raw)
