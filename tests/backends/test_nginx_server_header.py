"""The header Server of answers: none, or one as set, by a module of nginx; where it is absent, that is reported."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from rulegen.backends.nginx.names import module_trait, modules_of
from rulegen.cli.engines.nginx.program import PLACEHOLDER_NGINX, ChosenNginx
from rulegen.host.commands.runner import run
from rulegen.host.nginx.facts import gather_nginx, without_unloadable
from rulegen.languages.nginx.facts import HEADERS_MORE
from tests.rights import needs_nginx
from tests.strategies.ingresses import NASTY, OPTIONS, WEB, compiled, config_map, refusal, settings_map, site, text_of

FILE = f"/usr/lib/nginx/modules/{HEADERS_MORE}.so"
ABLE = msgspec.structs.replace(OPTIONS.host, sets_server=True, traits=frozenset({module_trait(HEADERS_MORE, FILE)}))
BUILT_IN = msgspec.structs.replace(ABLE, traits=frozenset({module_trait(HEADERS_MORE, "")}))
NAMED = config_map("named", {"Server": 'x "y" ${host}'}, "ingress-nginx")


def main_of(host, **settings: str) -> str:
    return compiled(*WEB, site(), NAMED, settings_map(**settings), host=host).configuration.files["nginx.conf"]


@pytest.mark.parametrize("host", [ABLE, BUILT_IN])
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "more_clear_headers Server;"),
        ({"server_tokens": "true"}, ""),
        ({"allow_backend_server_header": "true"}, ""),
        ({"add_headers": "named"}, 'more_set_headers "Server: x \\"y\\" ${host}";'),
        ({"add_headers": "named", "server_tokens": "true"}, 'more_set_headers "Server: x \\"y\\" ${host}";'),
    ],
)
def test_an_answer_has_no_server_or_the_one_that_is_set(host, settings, line):
    text = main_of(host, **settings)
    lines = [each.strip() for each in text.splitlines()]
    assert [each for each in lines if each.startswith("more_")] == ([line] * bool(line))
    assert "add_header Server" not in text
    assert (f"load_module {FILE};" in text) is (host is ABLE)


def test_one_ingress_sets_a_server_of_its_own():
    objects = (config_map("own", {"server": "mine"}), settings_map(global_allowed_response_headers="Server"))
    made = compiled(*WEB, site(custom_headers="own"), *objects, host=ABLE)
    assert 'more_set_headers "Server: mine";' in text_of(made)
    assert not made.model.reasons


def test_without_headers_more_server_is_sent_once():
    objects = (
        config_map("own", {"Server": "mine"}),
        NAMED,
        settings_map(add_headers="named", global_allowed_response_headers="Server,X-Own"),
    )
    made = compiled(*WEB, site(custom_headers="own"), *objects)
    files = "".join(made.configuration.files.values())
    assert "more_" not in files
    assert "load_module" not in files
    assert "mine" not in files
    assert sorted(reason.message for reason in made.model.reasons) == [
        f"data.{key}: the HTTP server of this node cannot set the header Server: it is ignored"
        for key in ("add-headers", "global-allowed-response-headers")
    ]
    assert "return 503" not in files


@needs_nginx
@pytest.mark.slow
def test_whatever_the_value_is_nginx_takes_it(tmp_path):
    facts = without_unloadable(run, "nginx", gather_nginx(run), HEADERS_MORE)
    if HEADERS_MORE not in facts.modules:
        pytest.skip("nginx has no module headers-more")
    host = msgspec.structs.replace(ABLE, traits=frozenset({module_trait(HEADERS_MORE, facts.modules[HEADERS_MORE])}))
    for number, text in enumerate(text for text in NASTY if text.isprintable()):
        values = config_map("named", {"Server": text}, "ingress-nginx")
        made = compiled(*WEB, site(), values, settings_map(add_headers="named"), host=host)
        assert refusal(made.configuration, tmp_path / str(number)) == ""


@pytest.mark.parametrize(
    ("built_in", "modules", "traits"),
    [
        (set(), {}, {}),
        (set(), {"ngx_stream_module": "/usr/lib/nginx/modules/ngx_stream_module.so"}, {}),
        (set(), {HEADERS_MORE: FILE}, {HEADERS_MORE: FILE}),
        ({HEADERS_MORE}, {}, {HEADERS_MORE: ""}),
        ({HEADERS_MORE}, {HEADERS_MORE: FILE}, {HEADERS_MORE: ""}),
    ],
)
def test_the_installed_modules_decide(built_in, modules, traits, monkeypatch, tmp_path):
    facts = replace(PLACEHOLDER_NGINX, built_in=frozenset(built_in), modules=modules, group="")
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.gather_nginx", lambda *_, **__: facts)
    monkeypatch.setattr("rulegen.host.nginx.facts.without_unloadable", lambda *_: facts)
    engine = ChosenNginx(nginx_dir=str(tmp_path)).engine(OPTIONS, [], look=lambda options: options, tries_aside=True)
    engine.refresh()
    assert modules_of(engine.options.host.traits) == traits
    assert engine.options.host.sets_server is bool(traits)
