"""What only HAProxy does with servers, by annotation: health checks, slow start, queues and retries."""

from __future__ import annotations

from rulegen.compiler.ingress.haproxy import compile_haproxy
from rulegen.languages.haproxy.commands import changes
from rulegen.languages.haproxy.runtime import RuntimeState, state_of
from rulegen.model.ingress.reasons import Verdict
from tests.strategies.ingresses import WEB, compiled, options, site, world

CHECKED = {"health_check_path": "/health", "health_check_interval": "7", "slow_start": "30"}


def _lines(**annotations):
    made = compile_haproxy(world(*WEB, site(**annotations)), options(), served=False)
    return [line.strip() for line in made.configuration.files["haproxy.cfg"].splitlines()], made


def test_servers_are_checked_and_start_slowly():
    lines, made = _lines(**CHECKED)
    assert "http-check send meth GET uri /health" in lines
    servers = [line for line in lines if line.startswith("server ")]
    assert servers
    assert all("check inter 7s slowstart 30s" in line for line in servers)
    state = state_of(made.configuration)
    secrets = {path: secret.content for path, secret in made.configuration.secrets.items()}
    commands = changes(RuntimeState(), state, (), secrets).additions
    assert sum(line.startswith("enable health ") for line in commands) == len(servers)


def test_requests_wait_for_a_server():
    lines, _ = _lines(max_connections="3")
    assert all("maxconn 3" in line for line in lines if line.startswith("server "))


def test_other_failures_lead_to_another_server():
    lines, _ = _lines(retry_on="conn-failure 503")
    assert "retry-on conn-failure 503" in lines


def test_without_them_nothing_is_checked_and_nothing_waits():
    lines, _ = _lines()
    assert [line for line in lines if "check" in line.split() or " maxconn " in line] == []


def test_nginx_reports_that_they_have_no_effect():
    reasons = compiled(*WEB, site(**CHECKED)).model.reasons
    assert [reason.verdict for reason in reasons if "no effect with nginx" in reason.message] == [Verdict.UNSUPPORTED]
