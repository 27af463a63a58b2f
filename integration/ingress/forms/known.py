"""What a case and a hostile entry may say: every key, and the form of its value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import click

Form = Callable[[Any], bool]


def is_text(value: object) -> bool:
    """Tell whether a value is a text."""
    return isinstance(value, str)


def is_bool(value: object) -> bool:
    """Tell whether a value is true or false; YAML reads `"false"` as a text, which would count as true."""
    return isinstance(value, bool)


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_some(value: object) -> bool:
    """Tell whether a value is a whole number of at least 1."""
    return is_count(value) and value != 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return is_text(value) or _is_number(value)


def among(*words: object) -> Form:
    """Return the form of a closed list of words."""
    return lambda value: value in words


def several(form: Form, *, empty: bool = False) -> Form:
    """Return the form of a list."""
    return lambda value: isinstance(value, list | tuple) and (empty or bool(value)) and all(map(form, value))


def by_name(form: Form, *, empty: bool = False) -> Form:
    """Return the form of a mapping whose keys are texts."""
    return lambda value: (
        isinstance(value, dict)
        and (empty or bool(value))
        and all(map(is_text, value))
        and all(map(form, value.values()))
    )


def either(*forms: Form) -> Form:
    """Return the form of what has one of several forms."""
    return lambda value: any(form(value) for form in forms)


def _is_range(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_login(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_text, value))


_texts, _documents = several(is_text), several(by_name(lambda _: True), empty=True)
_NO_TEXT = among("")

SEEN: Mapping[str, Form] = {"path": is_text, "method": is_text, "host": is_text, "headers": by_name(_is_scalar)}

EXPECTED: Mapping[str, Form] = {
    "status": is_count,
    "status_one_of": several(is_count),
    "location": is_text,
    "location_one_of": _texts,
    "headers": by_name(_is_scalar),
    "headers_absent": _texts,
    "header_count": by_name(is_count),
    "backend_sees": by_name(lambda _: True),
    "backend_headers_absent": _texts,
    "backend_port": is_some,
    "backend_tls": is_bool,
    "max_seconds": _is_number,
    "upstream_addr": either(is_text, _texts),
    "alpn": is_text,
    "backend": is_text,
    "backend_namespace": is_text,
    "tls_cert": is_text,
    "upstream_name": is_text,
    "distinct_endpoints": is_some,
    "min_distinct_endpoints": is_some,
    "same_endpoint": is_bool,
    "endpoints_exactly": _texts,
    "split": by_name(_is_range),
    "status_counts": by_name(_is_range),
}

REQUEST: Mapping[str, Form] = {
    "host": is_text,
    "path": is_text,
    "headers": by_name(_is_scalar, empty=True),
    "repeat": is_some,
    "raw_path": is_bool,
    "tls": is_bool,
    "method": is_text,
    "basic_auth": _is_login,
    "burst": is_bool,
    "backend_response_headers": by_name(lambda value: _is_scalar(value) or _texts(value), empty=True),
    "alpn": either(is_text, _texts),
    "cookie_jar": either(is_bool, is_text),
    "body_bytes": is_count,
}

EVENT: Mapping[str, Form] = {"ingress": is_text, "type": among("Warning", "Normal"), "contains": is_text}

CASE: Mapping[str, Form] = {
    "name": is_text,
    "source": is_text,
    "compat": among("k8s", "ingress-nginx"),
    "note": is_text,
    "tags": several(among("literal", "slow-backend"), empty=True),
    "ingresses": _documents,
    "services": _documents,
    "endpoints": _documents,
    "extra_objects": _documents,
    "secrets": _documents,
    "requests": _documents,
    "config": by_name(is_text, empty=True),
    "flags": by_name(either(is_bool, _is_scalar), empty=True),
    "expect_events": _documents,
    "expect_ingress_status": among("has-address", "no-address"),
}

MUST = ("rejected", "rejected_or_literal", "annotation_ignored_or_rejected", "fail_closed")
MUST += ("default_cert", "literal", "reported")
CLASSES = ("annotation", "configmap", "endpointslice", "path", "secret", "service", "spec")

ENTRY: Mapping[str, Form] = {
    "id": is_text,
    "class": among(*CLASSES),
    "field": is_text,
    "value": lambda _: True,
    "must": among(*MUST),
    "why": is_text,
    "cve": either(is_text, _texts),
    "objects": _documents,
    # A text says which of the objects is the further one; a list are further objects.
    "objects_extra": either(is_text, _documents),
    "configmaps": _documents,
    "victim": is_bool,
    "render_ok": is_bool,
}
CONFIG_MAP: Mapping[str, Form] = {"name": is_text, "data": by_name(is_text, empty=True)}


def faults(place: str, given: object, forms: Mapping[str, Form], needed: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield each key that is not known, whose value has another form, or that is missing."""
    if not isinstance(given, Mapping):
        yield f"{place}: not a mapping: {given!r:.100}"
        return
    for key in given:
        name = f"{place}.{key}" if place else str(key)
        if key not in forms:
            yield f"{name}: this key is not known"
        elif not forms[key](given[key]):
            yield f"{name}: a value of a form that is not known: {given[key]!r:.100}"
    yield from (f"{place}.{key}".lstrip(".") + ": missing" for key in needed if key not in given)


def case_faults(case: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not known in a case."""
    yield from faults("", case, CASE)
    yield from (fault for number, event in _each(case, "expect_events") for fault in faults(number, event, EVENT))
    yield from flag_faults(case.get("flags"))
    requests = list(_each(case, "requests"))
    if not requests and not case.get("expect_events") and "expect_ingress_status" not in case:
        yield "requests: none, so nothing is checked"
    for number, request in requests:
        expected = {"expect": by_name(lambda _: True)}
        yield from faults(number, request, {**REQUEST, **expected}, ("host", "path", "expect"))
        yield from protocol_faults(request, number)
        yield from expectation_faults(request.get("expect"), f"{number}.expect")


def expectation_faults(expected: object, place: str) -> Iterator[str]:
    """Yield what is not known in what a request expects."""
    if not isinstance(expected, Mapping):
        return
    yield from faults(place, expected, EXPECTED)
    if "backend_sees" in expected:
        yield from faults(f"{place}.backend_sees", expected["backend_sees"], SEEN)
    if "backend_namespace" in expected and "backend" not in expected:
        yield f"{place}.backend_namespace: without backend"


def request_faults(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not known in a request, beside what it expects."""
    yield from faults("", {key: value for key, value in request.items() if key != "expect"}, REQUEST, ("host", "path"))
    yield from protocol_faults(request, "")


def protocol_faults(request: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield keys of a request that cannot stand together."""
    if request.get("alpn") and request.get("tls") is not True:
        yield f"{place}.alpn: {request['alpn']!r} without tls"
    if request.get("cookie_jar") and request.get("burst"):
        yield f"{place}.cookie_jar: with burst, where each answer may set what the next request sends"


def flag_faults(flags: object) -> Iterator[str]:
    """Yield flags that rulegen does not have, and those whose value is of another form."""
    for name, value in flags.items() if isinstance(flags, Mapping) else ():
        if name not in _flags():
            yield f"flags.{name}: rulegen has no such option"
        elif (_flags()[name] is True and str(value).lower() not in {"true", "false"}) or (
            _flags()[name] is False and is_bool(value)
        ):
            yield f"flags.{name}: a value of a form that is not known: {value!r:.100}"


@cache
def _flags() -> dict[str, bool | None]:
    """Return the options of `rulegen apply`, with whether each is a switch; None for those of ingress-nginx alone."""
    from rulegen.cli.main import cli  # noqa: PLC0415 - what only cases with flags need
    from rulegen.model.ingress.values.without_effect.flags import FLAGS, OTHER_NAMES  # noqa: PLC0415

    command = cli.get_command(click.Context(cli), "apply")
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    return dict.fromkeys((*FLAGS, *OTHER_NAMES)) | {
        name.removeprefix("--"): option.is_flag
        for option in options
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    }


def entry_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not known in a hostile entry."""
    yield from faults("", entry, ENTRY, ("must", "class"))
    yield from (fault for number, each in _each(entry, "configmaps") for fault in faults(number, each, CONFIG_MAP))


def _each(given: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    values = given.get(key, ())
    if isinstance(values, list):
        yield from ((f"{key}[{number}]", value) for number, value in enumerate(values) if isinstance(value, Mapping))
