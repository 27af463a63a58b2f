"""`rulegen export` with --ingress and --no-services: what was asked for is written, what is left out is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.cli.main import main
from tests.cli.ingress.test_old_flags import OBJECTS

RULES, SITE = "iptables.save", "nginx.conf"


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("objects.yaml").write_text(OBJECTS)
    Path("host").write_text("host: {hostname: node1, interfaces: []}\n")

    def call(*options: str) -> tuple[int, list[str], str]:
        given = ("-f", "objects.yaml", "--host", "host", "--ingress-class", "nginx")
        with pytest.raises(SystemExit) as stop:
            main(["export", *given, *options])
        written = (path for path in tmp_path.rglob("*") if path.name in {RULES, SITE})
        return (
            stop.value.code or 0,
            sorted(str(path.relative_to(tmp_path)) for path in written),
            capsys.readouterr().err,
        )

    return call


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (("-o", "out"), ["out/iptables.save"]),
        (("-o", "out", "--ingress"), ["out/iptables.save", "out/nginx/nginx.conf"]),
        (("-o", "out", "--ingress", "--no-services"), ["out/nginx/nginx.conf"]),
        (("-o", "out", "--ingress", "--nginx", "site"), ["out/iptables.save", "site/nginx.conf"]),
        (("-o", "out", "--nginx", "site"), ["out/iptables.save", "site/nginx.conf"]),
        (("--nginx", "site"), ["site/nginx.conf"]),
        (("--nginx", "site", "--no-services"), ["site/nginx.conf"]),
    ],
)
def test_what_was_asked_for_is_written(export, options, written) -> None:
    assert export(*options)[:2] == (0, written)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "out"), "2 Ingresses are ignored: demo/rest, demo/site; add --ingress to include Ingresses"),
        (("--nginx", "site"), "the rules of 1 Service are not exported: add -o DIR, or --no-services"),
    ],
)
def test_what_is_left_out_is_reported(export, options, said) -> None:
    assert said in export(*options)[2]


@pytest.mark.parametrize("options", [("-o", "out", "--ingress"), ("--nginx", "site", "--no-services")])
def test_what_was_chosen_to_be_left_out_is_not_reported(export, options) -> None:
    said = export(*options)[2]
    assert "ignored:" not in said
    assert "not exported" not in said


@pytest.mark.parametrize("options", [(), ("--ingress",), ("--no-services",), ("-o", "out", "--no-services")])
def test_an_export_of_nothing_or_to_nowhere_is_an_error(export, options) -> None:
    code, written, said = export(*options)
    assert (code, written) == (1, [])
    assert said
