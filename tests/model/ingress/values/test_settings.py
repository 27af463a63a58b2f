"""Keys of the ConfigMap for all hosts: one that nobody knows is named, with the nearest that there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.model.ingress.values.configmap import read_settings
from rulegen.model.ingress.values.setting_dependencies import NEEDS
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS, Settings
from tests.strategies.ingresses import WEB, compiled, settings_map, site

KEYS = sorted({*SETTINGS, *OTHER_NAMES})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("whitelist-source-rang", "whitelist-source-range"),
        ("Whitelist-Source-Range", "whitelist-source-range"),
        ("whitelist_source_range", "whitelist-source-range"),
        ("proxy-body-sise", "proxy-body-size"),
        ("global-auth-ulr", "global-auth-url"),
        ("proxy-set-header", "proxy-set-headers"),
    ],
)
def test_a_mistyped_key_is_named_with_the_nearest(key: str, meant: str) -> None:
    read = read_settings({key: "1"}, Settings())
    assert read.settings == Settings()
    assert read.warnings == (
        f'data.{key}: no such key in any release of ingress-nginx; it is ignored; did you mean "{meant}"?',
    )


def test_a_key_that_is_near_to_none_is_named_alone() -> None:
    said = "data.zzz: no such key in any release of ingress-nginx; it is ignored"
    assert read_settings({"zzz": "1"}, Settings()).warnings == (said,)


@given(st.sampled_from([key for key in KEYS if len(key) > 8]), st.data())
def test_a_key_without_one_of_its_letters_gets_a_question(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    mistyped = key[:at] + key[at + 1 :]
    if mistyped not in KEYS:
        assert "did you mean" in read_settings({mistyped: "1"}, Settings()).warnings[0]


@pytest.mark.parametrize(
    ("texts", "logs"),
    [
        ({}, True),
        ({"disable-access-log": "true"}, False),
        ({"disable-http-access-log": "true"}, False),
        ({"disable-access-log": "false", "disable-http-access-log": "true"}, False),
        ({"disable-access-log": "false", "disable-http-access-log": "false"}, True),
    ],
)
def test_either_key_switches_the_access_log_off(texts: dict[str, str], logs: bool) -> None:
    assert read_settings(texts, Settings()).settings.logs_access is logs


@pytest.mark.parametrize(
    ("texts", "asks"),
    [({}, True), ({"disable_ipv6_dns": "true"}, False), ({"disable_ipv6": "true"}, False)],
)
def test_names_are_resolved_to_ipv6_unless_either_key_says_no(texts: dict[str, str], asks: bool) -> None:
    made = compiled(*WEB, site(auth_url="http://outside.example.com/"), settings_map(**texts))
    files = made.configuration.files["nginx.conf"]
    assert "resolver " in files
    assert ("ipv6=off" not in files) is asks


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"use_proxy_protocol": "true", "proxy_real_ip_cidr": "10.0.0.0/8"}, ""),
        ({"use_forwarded_headers": "true", "proxy_real_ip_cidr": "10.0.0.0/8"}, ""),
        (
            {"use_proxy_protocol": "true", "use_forwarded_headers": "true", "proxy_real_ip_cidr": "10.0.0.0/8"},
            "data.use-forwarded-headers: the client's address is that of use-proxy-protocol, not of X-Forwarded-For",
        ),
        (
            {"compute_full_forwarded_for": "true"},
            "data.compute-full-forwarded-for: it has no effect without use-forwarded-headers",
        ),
        (
            {"global_auth_signin": "https://sso.test/"},
            "data.global-auth-signin: it has no effect without global-auth-url",
        ),
        ({"gzip_level": "5"}, "data.gzip-level: it has no effect without use-gzip"),
        ({"gzip_level": "5", "use_gzip": "false"}, "data.gzip-level: it has no effect without use-gzip"),
        ({"gzip_level": "5", "use_gzip": "true"}, ""),
        ({"hsts": "false", "hsts_preload": "true"}, "data.hsts-preload: it has no effect without hsts"),
        ({"hsts": "false", "hsts_preload": "false"}, ""),
        (
            {
                "compute_full_forwarded_for": "true",
                "use_forwarded_headers": "true",
                "proxy_real_ip_cidr": "10.0.0.0/8",
            },
            "",
        ),
        (
            {"enable_real_ip": "true"},
            "data.proxy-real-ip-cidr: any client can fake its address; give the networks of your load balancers",
        ),
    ],
)
def test_what_two_keys_together_do_is_reported(texts: dict[str, str], says: str) -> None:
    made = compiled(*WEB, site(), settings_map(**texts))
    assert [reason.message for reason in made.model.reasons] == [says] * bool(says)


@pytest.mark.parametrize(
    ("networks", "believes_all"),
    [
        ("0.0.0.0/0", True),  # the default
        ("0.0.0.0/0,::/0", True),
        ("10.0.0.0/8", False),
        ("10.0.0.0/8,::/0", False),
        ("0.0.0.0/0,fd00::/8", False),
        ("::/0", False),
    ],
)
def test_each_family_is_believed_by_its_own_networks(networks: str, believes_all: bool) -> None:
    made = compiled(*WEB, site(), settings_map(use_forwarded_headers="true", proxy_real_ip_cidr=networks))
    text = made.configuration.files["nginx.conf"]
    assert ("geo $realip_remote_addr $is_trusted" in text) is not believes_all
    assert all(f" {network} 1;" in text for network in networks.split(",")) is not believes_all


@pytest.mark.parametrize("key", sorted(NEEDS))
def test_a_key_that_needs_another_one_and_the_other_one_are_keys(key: str) -> None:
    assert {key, NEEDS[key]} <= SETTINGS.keys()


@pytest.mark.parametrize(("texts", "is_remark"), [({}, False), ({"use_gzip": "false"}, True)])
def test_a_key_without_effect_is_a_remark_where_what_it_needs_is_switched_off(
    texts: dict[str, str], is_remark: bool
) -> None:
    made = compiled(*WEB, site(), settings_map(gzip_level="5", **texts))
    assert [reason.verdict.is_remark for reason in made.model.reasons] == [is_remark]
