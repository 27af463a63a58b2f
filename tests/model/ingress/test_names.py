"""Every name that a release of ingress-nginx has documented is known: none is taken for a typing mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.reading import read_annotations
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.annotations.unsupported import UNSUPPORTED
from rulegen.model.ingress.values.configmap import read_settings
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS, Settings
from rulegen.model.ingress.values.without_effect.flags import FLAGS
from rulegen.model.ingress.values.without_effect.names import NameKind
from rulegen.model.ingress.values.without_effect.settings import WITHOUT_EFFECT

ABOUT = ObjectKey("Ingress", ObjectName("shop", "web"))
NAMES = Path(__file__).parent / "names"
PREFIX = "nginx.ingress.kubernetes.io"

ANNOTATIONS_OF_RELEASES = (NAMES / "annotations.txt").read_text(encoding="utf-8").split()

KEYS_OF_RELEASES = (NAMES / "keys.txt").read_text(encoding="utf-8").split()


def test_every_documented_annotation_is_known() -> None:
    assert [name for name in ANNOTATIONS_OF_RELEASES if name not in ANNOTATIONS | UNSUPPORTED] == []


def test_every_documented_key_is_known() -> None:
    assert [name for name in KEYS_OF_RELEASES if name not in {*SETTINGS, *OTHER_NAMES, *WITHOUT_EFFECT}] == []


def test_a_key_has_an_effect_or_a_reason_why_not() -> None:
    assert not WITHOUT_EFFECT.keys() & {*SETTINGS, *OTHER_NAMES}


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_key_without_effect_is_reported_with_what_it_is(name: str) -> None:
    row = WITHOUT_EFFECT[name]
    read = read_settings({name: "anything"}, Settings())
    assert read.settings == Settings()
    assert read.reports == ((row.verdict, f"data.{name}: {row.message}"),)
    assert "did you mean" not in row.message
    assert ("protects nothing" in row.message) is (row.kind is NameKind.PROTECTION)


@pytest.mark.parametrize(
    ("name", "text"), [(row.name, text) for row in WITHOUT_EFFECT.values() for text in row.fulfilled_by]
)
def test_a_key_that_asks_for_what_is_done_is_not_reported(name: str, text: str) -> None:
    assert read_settings({name: text}, Settings()).reports == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("secure-backends", "true", 'backend-protocol: "HTTPS"'),
        ("session-cookie-hash", "sha1", "session-cookie-name"),
        ("ssl-passthrough", "true", "TLS ends at nginx"),
        ("enable-modsecurity", "true", "protects nothing here!"),
        ("lua-resty-waf", "active", "protects nothing here!"),
    ],
)
def test_an_annotation_of_any_release_says_what_became_of_it(name: str, text: str, said: str) -> None:
    (reason,) = read_annotations(ABOUT, {f"{PREFIX}/{name}": text}, PREFIX).reasons
    assert said in reason.message
    assert "did you mean" not in reason.message
    assert reason.verdict is Verdict.UNSUPPORTED


@pytest.mark.parametrize("name", ["secure-backends", "ssl-passthrough", "enable-modsecurity"])
def test_a_switch_that_is_off_asks_for_nothing(name: str) -> None:
    assert read_annotations(ABOUT, {f"{PREFIX}/{name}": "false"}, PREFIX).reasons == []


def test_every_flag_of_an_installation_is_known() -> None:
    """These are the arguments that the chart and the manifests of ingress-nginx start it with."""
    given = (NAMES / "flags.txt").read_text(encoding="utf-8").split()
    assert [name for name in given if name not in FLAGS] == []
