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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nginx", "site", "--haproxy", "site"), "--nginx and --haproxy have the same folder"),
        (("--nginx", "site", "--haproxy", "./x/../site/"), "--nginx and --haproxy have the same folder"),
        (("--nginx", "site", "--haproxy", "link"), "--nginx and --haproxy have the same folder"),
        (("--nginx", "site", "--haproxy", "site/hosts"), "--nginx and --haproxy must not be nested"),
        (("--nginx", "a/b/c", "--haproxy", "a"), "--haproxy and --nginx must not be nested"),
        (("--nginx", "site", "-o", "site/hosts"), "--nginx and -o must not be nested"),
    ],
)
def test_folders_whose_files_would_get_mixed_are_refused(export, options, said) -> None:
    Path("link").symlink_to("site")
    code, written, err = export(*options)
    assert (code, written) == (1, [])
    assert said in err


@pytest.mark.parametrize("folders", [("out", "out"), ("out", "out/nginx"), ("out", "outside")])
def test_an_engine_may_be_exported_beside_the_rules_or_below_them(export, folders) -> None:
    code, written, _ = export("-o", folders[0], "--nginx", folders[1])
    assert (code, written) == (0, sorted([f"out/{RULES}", f"{folders[1]}/{SITE}"]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--endpointslices", "--ingress"), "give a folder: -o DIR"),
        (("--endpointslices", "--nginx", "site"), "--endpointslices and --nginx would both print to standard output"),
    ],
)
def test_ingresses_are_not_dropped_for_endpointslices(export, options, said) -> None:
    code, written, err = export(*options)
    assert (code, written) == (1, [])
    assert said in err


def test_endpointslices_and_ingresses_go_to_one_folder(export) -> None:
    assert export("--endpointslices", "--ingress", "-o", "out")[:2] == (0, [f"out/{RULES}", f"out/nginx/{SITE}"])
    assert Path("out/endpointslices.yaml").exists()


def test_an_option_about_ingresses_has_no_effect_without_them(export) -> None:
    assert "--ingress-class has no effect without --ingress" in export("-o", "out")[2]
    assert "no effect without" not in export("-o", "out", "--ingress")[2]
    assert "no effect without" not in export("--nginx", "site")[2]
