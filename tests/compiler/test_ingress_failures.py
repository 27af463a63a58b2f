"""An error of rulegen itself harms only the Ingress that leads to it, and opens nothing."""

from __future__ import annotations

import pytest

from rulegen.backends.nginx import configuration
from rulegen.errors import HostError
from rulegen.host.nginx.engine import NginxCompiler
from rulegen.kube.objects import structs as k
from rulegen.model.ingress.ir import FixedResponse
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from rulegen.model.ingress.values.texts import _FAMILIES, _NAMES
from tests.strategies.ingresses import (
    NAMED,
    TEMPLATES,
    WEB,
    compiled,
    ingress,
    options,
    path,
    rule,
    service,
    site,
    text_of,
    verdicts,
    world,
)

EXTERNAL = service("outside", type="ExternalName", cluster_ip="", external_name="example.com", ports=())
VARIABLES = [*_NAMES, *(f"{family}x" for family in _FAMILIES), "1", "9"]
KINDS = ("service", "external", "resource", "absent", "default", "none")


def _of(kind, name, annotations):
    """Return an Ingress with a kind of backend."""
    host = f"{name}.test"
    if kind == "default":
        return ingress(name, annotations=annotations, default=k.IngressBackend(service=path().backend.service))
    if kind == "none":
        return ingress(name, k.IngressRule(host=host), annotations=annotations)
    if kind == "resource":
        bucket = k.IngressBackend(resource=k.TypedReference(kind="Bucket", name="b"))
        each = k.HTTPIngressPath(path="/", path_type="Prefix", backend=bucket)
    else:
        each = path("/a(.*)", "ImplementationSpecific", {"service": "web", "external": "outside"}.get(kind, "absent"))
    return ingress(name, rule(host, each), annotations=annotations)


def _texts(name, variables=VARIABLES):
    """Yield values of an annotation: a variable in each place where one may stand."""
    for variable in variables:
        for form in (
            "$V",
            "${V}",
            "/$V",
            "/x$V",
            "https://a.test/$V",
            "https://a.test$V",
            "https://$V/",
            "http://$V",
            "$V.x",
        ):
            text = form.replace("V", variable)
            try:
                ANNOTATIONS[name].read(text)
            except ValueError:
                continue
            yield text


BESIDE = {
    "auth-signin": {"auth-url": "http://a.test/"},
    "auth-request-redirect": {"auth-url": "http://a.test/"},
    "auth-tls-error-page": {"auth-tls-secret": "default/ca"},
    "x-forwarded-prefix": {"rewrite-target": "/$1"},
}
WITH_VARIABLES = [name for name in sorted(ANNOTATIONS) if any(_texts(name, (*VARIABLES[:2], "1")))]
"""What takes one of a few variables, which are quick to try."""


@pytest.mark.not_quick
def test_there_are_annotations_with_variables():
    assert {"permanent-redirect", "auth-url", "upstream-vhost", "x-forwarded-prefix"} <= set(WITH_VARIABLES)
    assert [name for name in sorted(ANNOTATIONS) if any(_texts(name))] == WITH_VARIABLES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_VARIABLES)
def test_every_variable_compiles_with_every_kind_of_backend(name, kind):
    texts = list(_texts(name))
    if kind == "default":  # of several without rules, the oldest alone is served
        for text in texts[:: max(1, len(texts) // 12)]:
            compiled(*WEB, *NAMED, EXTERNAL, _of(kind, "d", {name: text, **BESIDE.get(name, {})}))
        return
    ingresses = [_of(kind, f"i{at}", {name: text, **BESIDE.get(name, {})}) for at, text in enumerate(texts)]
    result = compiled(*WEB, *NAMED, EXTERNAL, *ingresses)
    assert not [reason for reason in result.model.reasons if "internal error" in reason.message]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", ["HTTP", "HTTPS", "GRPC", "GRPCS", "FCGI", "AUTO_HTTP"])
def test_every_protocol_compiles_with_every_kind_of_backend_and_variable(kind, protocol):
    names = {
        "permanent-redirect": "https://a.test$request_uri",
        "upstream-vhost": "$service_name.$namespace",
        "x-forwarded-prefix": "/$service_port$1",
        "rewrite-target": "/$1",
        "custom-http-errors": "404,503",
        "default-backend": "web",
        "affinity": "cookie",
        "auth-url": "http://$host/$service_name",
    }
    for name, text in names.items():
        result = compiled(*WEB, *NAMED, EXTERNAL, _of(kind, "site", {name: text, "backend-protocol": protocol}))
        assert not [reason for reason in result.model.reasons if "internal error" in reason.message]


def _broken(monkeypatch, host):
    """Make the compilation of a host fail as long as an Ingress has it."""
    compile_host = configuration.compile_host

    def broken(server, *args, **more):
        if server.host == host and not all(location.policy.is_closed for location in server.locations):
            raise ZeroDivisionError("of a Secret")
        return compile_host(server, *args, **more)

    monkeypatch.setattr(configuration, "compile_host", broken)


def test_an_error_for_one_host_leaves_out_that_host_alone(monkeypatch):
    _broken(monkeypatch, "bad.test")
    compiler = NginxCompiler(TEMPLATES, options())
    sites = [site(f"{name}.test") for name in ("a", "bad", "c")]
    result = compiler.compile(world(*WEB, *sites))
    assert "bad.test" not in result.model.servers
    assert verdicts(result, "default/bad") == {Verdict.QUARANTINED}
    (reason,) = (reason for reason in result.model.reasons if reason.verdict is Verdict.QUARANTINED)
    assert reason.message.startswith("internal error of rulegen: ZeroDivisionError at ")
    assert "Secret" not in reason.message
    for name in ("a", "c"):
        assert "proxy_pass" in text_of(result, f"{name}.test")
        assert verdicts(result, f"default/{name}") == set()


def test_what_it_guarded_stays_closed(monkeypatch):
    _broken(monkeypatch, "bad.test")
    compiler = NginxCompiler(TEMPLATES, options())
    bad = site("bad.test", whitelist_source_range="10.0.0.0/8")
    result = compiler.compile(world(*WEB, bad, ingress("any", rule("*.test"))))
    assert {location.target for location in result.model.servers["bad.test"].locations} <= {
        FixedResponse(503),
        FixedResponse(404),
    }
    assert verdicts(result, "default/bad") == {Verdict.QUARANTINED, Verdict.CLOSED}


def test_an_error_without_any_ingress_is_one_of_all(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(configuration, "compile_host", broken)
    with pytest.raises(HostError, match="even without any Ingress: internal error of rulegen: ZeroDivisionError"):
        NginxCompiler(TEMPLATES, options()).compile(world(*WEB, site()))
