"""Files that are wrong as bytes, or wrong by their size: made here, since no table can hold them."""

from __future__ import annotations

import codecs
import tracemalloc
from functools import partial

import pytest

from rulegen.errors import InputError
from rulegen.kube.reading import documents, yaml_text
from rulegen.kube.reading.documents import MAX_REFUSED, Source
from rulegen.kube.reading.yaml_text import YamlFault, read_yaml
from rulegen.kube.snapshot import build
from rulegen.kube.snapshot.build import MAX_REJECTED, MAX_UNKNOWN, read_world
from rulegen.kube.snapshot.pods import PodIndex

SERVICE = b"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n"
HUGE = 100_000
SELECTS_ALL = "{clusterIP: 10.0.0.1, selector: {a: b}, ports: [{port: 1, name: a}, {port: 2, name: b}]}"
LABEL = "labels: {a: b}"
STATUS = "{podIP: 10.1.1.1}"
NO_LABEL = 'is not a valid name: a-z, 0-9 and "-" inside, at most 63 characters'

CASES = {
    "utf-16-le": (
        codecs.BOM_UTF16_LE + SERVICE.decode().encode("utf-16-le"),
        "bad: is UTF-16 text; manifests are UTF-8",
    ),
    "utf-16-be": (
        codecs.BOM_UTF16_BE + SERVICE.decode().encode("utf-16-be"),
        "bad: is UTF-16 text; manifests are UTF-8",
    ),
    "utf-32-le": (
        codecs.BOM_UTF32_LE + SERVICE.decode().encode("utf-32-le"),
        "bad: is UTF-32 text; manifests are UTF-8",
    ),
    "utf-32-be": (
        codecs.BOM_UTF32_BE + SERVICE.decode().encode("utf-32-be"),
        "bad: is UTF-32 text; manifests are UTF-8",
    ),
    "utf-16-without-mark": (
        SERVICE.decode().encode("utf-16-le"),
        "bad:1: not YAML: control characters are not allowed",
    ),
    "latin-1": (SERVICE + "# für\n".encode("latin-1"), f"bad:5: not UTF-8 (byte {len(SERVICE) + 4})"),
    "cut-in-a-character": (SERVICE + "# ü".encode()[:-1], f"bad:5: not UTF-8 (byte {len(SERVICE) + 3})"),
    "encoded-surrogate": (b"a: \xed\xa0\x80\n", "bad:1: not UTF-8 (byte 4)"),
    "overlong": (b"a: \xc0\xaf\n", "bad:1: not UTF-8 (byte 4)"),
    "bad-byte-after-a-megabyte": (b"# " + b"x" * (1 << 20) + b"\n\xc3", f"bad:2: not UTF-8 (byte {(1 << 20) + 4})"),
    "bad-character-across-pieces": (b"#" + b"x" * ((1 << 20) - 2) + b"\xc3x", f"bad:1: not UTF-8 (byte {1 << 20})"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(range(256)), "bad:1: not UTF-8 (byte 2)"),
    "elf": (b"\x7fELF\x02\x01\x01\x00" * 10, "bad:1: not YAML: control characters are not allowed"),
    "nul": (b"kind: \0\n", "bad:1: not YAML: control characters are not allowed"),
    "nuls": (b"\0" * HUGE, "bad:1: not YAML: control characters are not allowed"),
    "nul-escaped": (b'apiVersion: v1\nkind: "Service\\0"\n', r'bad:1: kind: "Service\x00" is not the name of a kind'),
    "deep-flow-list": (b"a: " + b"[" * HUGE, "bad:1: more than 100 levels deep"),
    "deep-flow-mapping": (b"{a: " * HUGE, "bad:1: more than 100 levels deep"),
    "deep-block-list": (b"- " * HUGE, "bad:1: more than 100 levels deep"),
    "deep-question-marks": (b"? " * HUGE, "bad:1: more than 100 levels deep"),
    "deep-json-list": (b"[" * HUGE, "bad: JSON nested too deep"),
    "deep-json-object": (b'{"a":' * HUGE, "bad: JSON nested too deep"),
    "deep-json-list-in-a-field": (
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","labels":' + b"[" * 200 + b"]" * 200 + b"}}",
        "Service (unreadable): more than 100 levels deep",
    ),
    "bomb-of-lists": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 118)),
        "bad:6: aliases expand to more than 100000 values",
    ),
    "bomb-of-mappings": (
        b"a: &a {x: y}\n"
        + b"".join(
            b"%c: &%c {%s}\n" % (c + 1, c + 1, b",".join(b"k%d: *%c" % (i, c) for i in range(9)))
            for c in range(97, 118)
        ),
        "bad:6: aliases expand to more than 100000 values",
    ),
    "bomb-of-merges": (
        b"a: &a {%s}\n" % b",".join(b"k%d: v" % i for i in range(1000))
        + b"".join(b"m%d: {<<: *a}\n" % i for i in range(1000)),
        "bad:51: aliases expand to more than 100000 values",
    ),
    "bomb-of-one-alias": (b"a: [&a x" + b",*a" * 200_000 + b"]", "bad:1: aliases expand to more than 100000 values"),
    "bomb-in-a-label": (
        b"apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: &a [x, x], b: &b [*a, *a], c: [*b]}}\n",
        "Service default/web: metadata.labels.a: expected a text, got a list",
    ),
    "directives": (b"%TAG !a! x\n" * HUGE, "bad:1: more than 16 lines that start with %: not read"),
    "long-name": (
        SERVICE.replace(b"web", b"w" * HUGE),
        f'Service default/{"w" * 80}…: metadata.name: "{"w" * 80}…" {NO_LABEL}',
    ),
    "name-of-64": (
        SERVICE.replace(b"web", b"w" * 64),
        f'Service default/{"w" * 64}: metadata.name: "{"w" * 64}" {NO_LABEL}',
    ),
    "long-key": (b"k" * HUGE + b": v\n", "bad:1: not YAML: mapping values are not allowed in this context"),
    "long-tag": (b"a: !" + b"t" * HUGE + b" x\n", f'bad:1: the tag "!{"t" * 79}…" is not allowed in a manifest'),
    "long-alias": (b"a: *" + b"b" * HUGE + b"\n", f"bad:1: the alias *{'b' * 80}… has no anchor before it"),
    "long-number": (
        SERVICE.replace(b"80", b"9" * HUGE),
        "Service default/web: spec.ports[0].port: expected an integer, got a number without bounds",
    ),
    "long-json-number": (
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":'
        + b"9" * HUGE
        + b"}]}}",
        "Service (unreadable): not JSON: integer value out of range",
    ),
    "number-of-4000-digits": (
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"clusterIP":"10.0.0.1","ports":[{"port":'
        + b"9" * 4000
        + b"}]}}",
        "Service default/a: spec.ports[0].port: a number of more than 64 bits is not a port (1\N{EN DASH}65535)",
    ),
    "long-address": (
        SERVICE.replace(b"10.96.0.1", b"1" * HUGE + b".0.0.1"),
        f'Service default/web: spec.clusterIP: "{"1" * 80}…" is not an IP address',
    ),
    "long-kind": (b"apiVersion: v1\nkind: " + b"K" * HUGE, f'bad:1: kind: "{"K" * 80}…" is not the name of a kind'),
    "unclosed-quote-of-many-lines": (
        b"a: 'x" + b"\n" * HUGE,
        f"bad:{HUGE + 1}: not YAML: while scanning a quoted scalar, found unexpected end of stream",
    ),
    "only-a-byte-order-mark": (codecs.BOM_UTF8, None),
    "empty": (b"", None),
    "blank": (b"\n" * HUGE, None),
    "comments": (b"# nothing\n" * HUGE, None),
    "empty-documents": (b"---\n" * 1000, None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.timeout(20)
def test_bytes(name: str) -> None:
    content, line = CASES[name]
    world = read_world([Source("bad", content), Source("good.yaml", SERVICE.replace(b"web", b"good"))])
    assert [str(service) for service in world.services] == ["default/good"]
    assert [entry for rejected in world.rejected for entry in rejected.lines()][:1] == ([line] if line else [])
    with pytest.raises(InputError, match="no usable Kubernetes object in it"):
        read_world([Source("bad", content)])


def test_a_byte_order_mark_is_no_fault() -> None:
    assert len(read_world([Source("web.yaml", codecs.BOM_UTF8 + SERVICE)]).services) == 1


def test_a_bomb_takes_no_memory() -> None:
    content = CASES["bomb-of-lists"][0]
    tracemalloc.start()
    try:
        list(read_yaml(content))
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "content",
    [b"---\nx\n" * HUGE, b"{}\n" * HUGE, b'{"apiVersion":"v1","kind":"List","items":[' + b"0," * HUGE + b"0]}"],
    ids=["yaml", "json-stream", "json-items"],
)
def test_a_file_that_is_something_else_is_given_up(content: bytes) -> None:
    world = read_world([Source("bad", content), Source("good", SERVICE)])
    assert len(world.rejected) == MAX_REFUSED + 1
    assert world.rejected[-1].lines() == (f"bad: {MAX_REFUSED} faults: the rest was not read",)


@pytest.mark.not_quick
def test_a_flood_of_bad_objects_is_counted() -> None:
    bad = b'{"apiVersion":"v1","kind":"Node","metadata":{"name":"A"}}'
    content = b'{"apiVersion":"v1","kind":"List","items":[' + b",".join([bad] * (MAX_REJECTED + 7)) + b"]}"
    world = read_world([Source("bad", content), Source("good", SERVICE)])
    assert len(world.rejected) == MAX_REJECTED + 1
    assert world.rejected[-1].lines() == ("input: 7 more objects were rejected",)


def test_a_flood_of_unknown_kinds_is_counted() -> None:
    content = b"\n---\n".join(b"apiVersion: v1\nkind: K%d" % i for i in range(MAX_UNKNOWN + 5))
    world = read_world([Source("many", content), Source("good", SERVICE)])
    assert len(world.unknown_kinds) == MAX_UNKNOWN + 1
    assert world.unknown_kinds["other kinds"] == 5


def test_a_product_of_selectors_and_pods_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred kilobytes would ask for a hundred million endpoints."""
    monkeypatch.setattr(build, "PodIndex", partial(PodIndex, work=5000))
    services = [f"{{apiVersion: v1, kind: Service, metadata: {{name: s{i}}}, spec: {SELECTS_ALL}}}" for i in range(30)]
    pods = [f"{{apiVersion: v1, kind: Pod, metadata: {{name: p{i}, {LABEL}}}, status: {STATUS}}}" for i in range(30)]
    world = read_world([Source("many", "\n---\n".join(services + pods).encode())])
    assert len(world.services) == 23
    assert [rejected.lines() for rejected in world.rejected] == [
        (f"Service default/s{i}: spec.selector: all selectors together select too many Pods: no endpoints derived",)
        for i in range(3, 10)
    ]


def test_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MAX_VALUES", 1000)
    monkeypatch.setattr(documents, "MAX_JSON_COMMAS", 1000)
    results = list(read_yaml(b"a: [" + b"[x]," * 1000 + b"]\n---\n" + SERVICE))
    assert results == [YamlFault(1, "more than 1000 values in one file: the rest was not read")]
    with pytest.raises(InputError) as raised:
        read_world([Source("bad", b'{"a":[' + b"1," * 1001 + b"1]}")])
    assert raised.value.hint == "bad: more than 1000 values in one file: not read"


def test_broken_documents_are_given_up_after_some() -> None:
    results = list(read_yaml("# für\n".encode() + b"---\n[\n" * HUGE))
    assert len(results) == yaml_text.MAX_FAULTS + 1
    assert results[-1].message == "more than 20 faults in this file: the rest was not read"
