"""A key of the ConfigMap with an empty text counts as absent, whatever its default; this is reported once."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.configmap import EMPTY, read_settings
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS, Settings

EXCEPTIONS = {"no-auth-locations", "no-tls-redirect-locations", "proxy-real-ip-cidr"}
"""Keys with exceptions to what restricts access, or with who is trusted: empty means none, as in ingress-nginx."""
KEYS = sorted({*SETTINGS, *OTHER_NAMES})
RULE = sorted({*KEYS} - EXCEPTIONS)


@pytest.mark.parametrize("text", ["", " ", "\n\t"], ids=repr)
@pytest.mark.parametrize("key", RULE)
def test_an_empty_text_counts_as_absent(key, text):
    read = read_settings({key: text}, Settings())
    assert read.settings == read_settings({}, Settings()).settings
    assert (read.faults, read.guards, read.references) == ((), (), {})
    assert read.warnings == (f"data.{key}: {EMPTY}",)


def test_the_value_of_an_option_stays_as_well():
    base = replace(Settings(), worker_processes="3", whitelist_source_range=(ip_network("10.0.0.0/8"),))
    read = read_settings({"worker-processes": "", "whitelist-source-range": ""}, base)
    assert read.settings == base


@pytest.mark.parametrize("key", ["worker-processes", "gzip-types", "log-format-upstream", "ssl-redirect"])
def test_it_is_not_served_as_written_if_the_default_says_something(key):
    assert [verdict for verdict, _ in read_settings({key: ""}, Settings()).reports] == [Verdict.IGNORED]


@pytest.mark.parametrize("key", ["hide-headers", "custom-http-errors", "worker-cpu-affinity", "http-snippet"])
def test_an_empty_list_is_served_as_written_if_there_is_none_anyway(key):
    assert [verdict for verdict, _ in read_settings({key: ""}, Settings()).reports] == [Verdict.NOTE]


@pytest.mark.parametrize("key", sorted(EXCEPTIONS))
def test_no_exceptions_are_a_value(key):
    read = read_settings({key: ""}, Settings())
    assert getattr(read.settings, key.replace("-", "_")) == ()
    assert read.warnings == ()
