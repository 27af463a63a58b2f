"""HTTP/2 is switched on in the words of the nginx that is installed: for each address, or by a directive of its own."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from rulegen.backends.nginx.names import HTTP2_IS_DIRECTIVE
from rulegen.cli.engines.nginx.program import PLACEHOLDER_NGINX, ChosenNginx
from tests.strategies.ingresses import OPTIONS, WEB, compiled, site


@pytest.mark.parametrize(
    ("traits", "by_address", "by_directive"), [(set(), True, False), ({HTTP2_IS_DIRECTIVE}, False, True)]
)
def test_http2_is_switched_on_once(traits, by_address, by_directive):
    files = compiled(
        *WEB, site(), host=msgspec.structs.replace(OPTIONS.host, traits=frozenset(traits))
    ).configuration.files
    assert ("ssl http2" in "".join(files.values())) is by_address
    assert (" http2 on;" in files["nginx.conf"]) is by_directive


@pytest.mark.parametrize(
    ("version", "traits"), [((1, 22, 1), set()), ((1, 25, 0), set()), ((1, 25, 1), {HTTP2_IS_DIRECTIVE})]
)
def test_the_version_decides(version, traits, monkeypatch, tmp_path):
    facts = replace(PLACEHOLDER_NGINX, version=version, group="")
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.gather_nginx", lambda *_, **__: facts)
    chosen = ChosenNginx(nginx_dir=str(tmp_path))
    engine = chosen.engine(OPTIONS, [], look=lambda options: options, tries_aside=True)
    engine.refresh()
    assert engine.options.host.traits == traits
