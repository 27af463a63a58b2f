"""Files of Ingress cases: nothing that they say is passed over, and what the shared files say is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integration.ingress import objects
from integration.ingress.forms import files, known
from integration.ingress.objects import UnknownForm
from tests.shared import shared

ASKED: dict[str, Any] = {"host": "a.test", "path": "/", "expect": {"status": 200}}
CASE: dict[str, Any] = {"name": "a", "requests": [ASKED]}

CASES = """
version: 1
cases:
- name: good
  requests:
  - {host: a.test, path: /, expect: {status: 200}}
- name: bad
  requests:
  - host: a.test
    path: /
    expect: {status: 503}
    expect: {status: 200}
"""


def _request(**more: Any) -> dict[str, Any]:
    return CASE | {"requests": [ASKED | more]}


@pytest.mark.parametrize(
    ("case", "key"),
    [
        (CASE | {"compat": "colour"}, "compat"),
        (CASE | {"tags": ["literal", "colour"]}, "tags"),
        (CASE | {"tags": "literal"}, "tags"),
        (CASE | {"flags": {"colour": "red"}}, "flags.colour"),
        (CASE | {"flags": {"ingress-class": True}}, "flags.ingress-class"),
        (CASE | {"flags": {"watch-ingress-without-class": "colour"}}, "flags.watch-ingress-without-class"),
        (CASE | {"config": {"use-gzip": True}}, "config"),
        ({"name": "a"}, "requests: none"),
        ({"name": "a", "requests": []}, "requests: none"),
        (CASE | {"requests": ["/"]}, "requests"),
        (CASE | {"requests": [{"host": "a.test", "path": "/"}]}, "requests[0].expect: missing"),
        (CASE | {"requests": [{"path": "/", "expect": {"status": 200}}]}, "requests[0].host: missing"),
        (_request(expect={}), "requests[0].expect"),
        (_request(expect={"colour": "red"}), "requests[0].expect.colour"),
        (_request(expect={"headers_absent": "X-A"}), "requests[0].expect.headers_absent"),
        (_request(expect={"headers": {}}), "requests[0].expect.headers"),
        (_request(expect={"backend_headers_absent": []}), "requests[0].expect.backend_headers_absent"),
        (_request(expect={"location_one_of": "http://a.test/"}), "requests[0].expect.location_one_of"),
        (_request(expect={"backend_sees": {}}), "requests[0].expect.backend_sees"),
        (_request(expect={"backend_sees": {"colour": "red"}}), "requests[0].expect.backend_sees.colour"),
        (_request(expect={"backend_namespace": "a"}), "requests[0].expect.backend_namespace"),
        (_request(tls="false"), "requests[0].tls"),
        (_request(tls=0), "requests[0].tls"),
        (_request(burst="false"), "requests[0].burst"),
        (_request(raw_path="false"), "requests[0].raw_path"),
        (_request(repeat=0), "requests[0].repeat"),
        (_request(repeat=True), "requests[0].repeat"),
        (_request(headers={"X-A": ["b"]}), "requests[0].headers"),
        (_request(basic_auth=["user"]), "requests[0].basic_auth"),
        (_request(alpn="h2"), "requests[0].alpn"),
        (_request(cookie_jar=True, burst=True), "requests[0].cookie_jar"),
        (_request(body_bytes=-1), "requests[0].body_bytes"),
        (CASE | {"expect_events": [{"ingress": "default/a", "type": "colour"}]}, "expect_events[0].type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_form_that_is_not_known_names_its_case_and_key(case: dict[str, Any], key: str) -> None:
    with pytest.raises(UnknownForm) as raised:
        files.check_case(case)
    assert "case a: " in str(raised.value)
    assert key in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"id": "a", "must": "rejected", "class": "path", "objects_extra": {"a": 1}}, "objects_extra"),
        ({"id": "a", "must": "rejected", "class": "path", "victim": 1}, "victim"),
        ({"id": "a", "class": "path"}, "must: missing"),
    ],
    ids=["objects_extra", "victim", "must"],
)
def test_so_does_one_of_a_hostile_entry(entry: dict[str, Any], key: str) -> None:
    with pytest.raises(UnknownForm) as raised:
        files.check_entry(entry)
    assert "entry a: " in str(raised.value)
    assert key in str(raised.value)


def test_a_key_that_stands_twice_stops_its_case_alone(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(CASES)
    good, bad = files.cases(tmp_path / "some.yaml")
    files.check_case(good)
    with pytest.raises(UnknownForm, match=r"some\.yaml: case bad: expect in line 12: stands twice"):
        files.check_case(bad)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nversion: 1\ncases: []",
        "version: 1\ncases: []\ncases: []",
        "version: 1\ncases: [{requests: []}]",
        "version: 1\ncases: [a]",
        "version: 1\ncases: {}",
        "- version: 1",
    ],
)
def test_the_frame_of_a_file_is_as_strict(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(UnknownForm, match=r"some\.yaml"):
        files.cases(tmp_path / "some.yaml")


def test_merged_keys_of_an_alias_do_not_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(
        "version: 1\ncases:\n"
        "- &a {name: a, requests: [{host: a, path: /, expect: {status: 200}}]}\n"
        "- {<<: *a, name: b}\n"
    )
    first, second = files.cases(tmp_path / "some.yaml")
    files.check_case(second)
    assert (first["name"], second["name"], second["requests"]) == ("a", "b", first["requests"])


def test_all_own_cases_are_read() -> None:
    for case in files.cases(files.OWN / "cases.yaml"):
        files.check_case(case)
    for entry in files.entries(files.OWN / "malicious.yaml"):
        files.check_entry(entry)


def test_all_shared_cases_are_read() -> None:
    for case in files.cases(shared("ingress/cases.yaml")):
        files.check_case(case)
    for entry in files.entries(shared("ingress/malicious.yaml")):
        files.check_entry(entry)


@pytest.mark.parametrize(
    "more",
    [
        {"flags": {"watch-ingress-without-class": True, "ingress-class": "nginx", "http-port": 8080}},
        {"flags": {"watch-ingress-without-class": "false", "publish-service": "default/a"}},
        {"tags": [], "flags": {}, "config": {}},
        {"requests": [ASKED | {"tls": True, "alpn": ["h2", "http/1.1"], "expect": {"alpn": "h2"}}]},
        {"requests": [ASKED | {"cookie_jar": "jane", "body_bytes": 0, "expect": {"upstream_addr": ["10.0.0.1:80"]}}]},
        {"requests": [ASKED | {"expect": {"headers": {"X-Code": 404, "X-Format": "~json"}}}]},
        {"requests": [], "expect_ingress_status": "no-address"},
    ],
    ids=str,
)
def test_what_is_known_is_taken(more: dict[str, Any]) -> None:
    assert list(known.case_faults(CASE | more)) == []


@pytest.mark.parametrize(
    "described",
    [
        {"data": {"tls.crt": "no certificate", "tls.key": b"\xff"}},
        {"tls.crt": "no certificate", "tls.key": b"\xff"},
    ],
    ids=["data", "keys"],
)
def test_a_raw_secret_has_the_bytes_as_they_are(described: dict[str, Any]) -> None:
    made = objects.described_secret({"name": "a", "kind": "tls-raw"} | described)
    assert made["data"] == {"tls.crt": "bm8gY2VydGlmaWNhdGU=", "tls.key": "/w=="}
    assert made["type"] == "kubernetes.io/tls"
