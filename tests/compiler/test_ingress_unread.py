"""What is absent is not unrestricted, and what is not answered yet is unknown: neither opens what was to be closed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rulegen.compiler.ingress.nginx import compile_ingress
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.unread import REFUSED, UNANSWERED, MissingError
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    SETTINGS,
    TEMPLATES,
    WEB,
    config_map,
    ingress,
    options,
    path,
    refusal,
    rule,
    secret,
    site,
    text_of,
    tls,
    tls_secret,
    verdicts,
    world,
)

BASIC = {"auth_type": "basic", "auth_secret": "users"}
USERS = secret("users", auth=b"u:{PLAIN}p\n")
CLIENT = {"auth_tls_secret": "ca"}
WITH_TLS = ingress("site", rule("site.test", path()), tls=[tls("cert", "site.test")])


def unread(*objects, keys, why=UNANSWERED, **changes):
    """Return what objects come to while the API server has not told of some others."""
    result = replace(world(*WEB, *objects), unread=dict.fromkeys(keys, why))
    return compile_ingress(result, options(**changes), TEMPLATES, served=True)


def key(kind, name, namespace="default"):
    return ObjectKey(kind, ObjectName(namespace, name))


class TestNamedByTheOptions:
    def test_a_missing_config_map_of_settings_decides_nothing(self):
        with pytest.raises(
            MissingError, match="ConfigMap ingress-nginx/settings, which --configmap refers to, does not exist"
        ):
            compile_ingress(world(*WEB, site()), options(config_map=SETTINGS), TEMPLATES, served=True)

    @pytest.mark.parametrize("name", ["add-headers", "proxy-set-headers"])
    def test_nor_does_one_of_headers_that_the_settings_name(self, name):
        settings = config_map(SETTINGS.name, {name: "default/headers"}, SETTINGS.namespace)
        with pytest.raises(
            MissingError, match=f"ConfigMap default/headers, which {name} in ConfigMap .* does not exist"
        ):
            compile_ingress(world(*WEB, site(), settings), options(config_map=SETTINGS), TEMPLATES, served=True)

    def test_nor_a_secret_of_the_default_certificate(self):
        with pytest.raises(
            MissingError, match="Secret default/cert, which --default-ssl-certificate refers to, does not"
        ):
            compile_ingress(
                world(*WEB, site()),
                options(default_certificate=ObjectName("default", "cert")),
                TEMPLATES,
                served=True,
            )

    @pytest.mark.parametrize("why", [UNANSWERED, REFUSED])
    def test_an_unread_object_is_not_called_absent(self, why):
        with pytest.raises(MissingError) as caught:
            unread(site(), keys=[ObjectKey("ConfigMap", SETTINGS)], why=why, config_map=SETTINGS)
        assert why in caught.value.message
        assert "does not exist" not in caught.value.message


@pytest.mark.parametrize(
    ("annotations", "missing"),
    [
        (BASIC, key("Secret", "users")),
        ({"proxy_ssl_secret": "ca", "backend_protocol": "HTTPS"}, key("Secret", "ca")),
        ({"auth_url": "http://web.default.svc/", "auth_proxy_set_headers": "headers"}, key("ConfigMap", "headers")),
        ({"custom_headers": "headers"}, key("ConfigMap", "headers")),
        ({"fastcgi_params_configmap": "headers", "backend_protocol": "FCGI"}, key("ConfigMap", "headers")),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)
@pytest.mark.parametrize("is_absent", [True, False], ids=["absent", "unanswered"])
def test_an_ingress_is_closed_without_what_it_names(annotations, missing, is_absent):
    result = unread(site("site.test", **annotations), keys=[] if is_absent else [missing])
    assert "_pass " not in text_of(result)
    assert "return 503" in text_of(result)
    assert verdicts(result) == {Verdict.CLOSED if is_absent else Verdict.WAITING}
    assert any("does not exist" in str(each) for each in result.model.reasons) is is_absent


def test_headers_of_another_namespace_close_an_ingress():
    headers = config_map("headers", {"X-Own": "yes"}, "other")
    result = unread(headers, site("site.test", custom_headers="other/headers"), keys=())
    assert "return 503" in text_of(result)
    assert verdicts(result) == {Verdict.CLOSED}


def test_without_the_ca_nobody_is_let_in_to_the_whole_host():
    other = ingress("other", rule("site.test", path("/other")))
    for keys in ([], [key("Secret", "ca")]):
        text = text_of(unread(site("site.test", **CLIENT), other, keys=keys))
        assert "return 403;" in text.partition("location")[0]


@needs_nginx
def test_a_host_whose_certificate_is_unread_speaks_no_tls(tmp_path):
    plain = site("plain.test")
    result = unread(WITH_TLS, plain, keys=[key("Secret", "cert")])
    assert "ssl_reject_handshake on;" in text_of(result)
    assert "ssl_certificate" not in text_of(result)
    assert "ssl_reject_handshake" not in text_of(result, "plain.test")
    assert verdicts(result) == {Verdict.WAITING}
    assert refusal(result.configuration, tmp_path) == ""


@needs_nginx
def test_the_same_for_every_other_host(tmp_path):
    everywhere = ingress("site", rule("", path()), tls=[tls("cert")])
    result = unread(everywhere, site("b.test"), keys=[key("Secret", "cert")])
    assert refusal(result.configuration, tmp_path) == ""
    assert "ssl_reject_handshake" not in text_of(result, "b.test")


def test_what_comes_is_served_as_if_it_had_always_been_there():
    late = [tls_secret("cert", "site.test"), USERS]
    before = unread(WITH_TLS, site("b.test", **BASIC), keys=[key("Secret", "cert"), key("Secret", "users")])
    whole = world(*WEB, WITH_TLS, site("b.test", **BASIC), *late)
    after = compile_ingress(whole, options(), TEMPLATES, served=True, before=before)
    fresh = compile_ingress(whole, options(), TEMPLATES, served=True)
    assert after.configuration == fresh.configuration
