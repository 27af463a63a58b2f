"""What can be read of an Ingress that is invalid. It cannot be served, but what it restricts must not open.

Anything that cannot be read counts as unknown, never as absent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressSpec,
    IngressTLS,
    ObjectMeta,
)
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.kube.validation.ingress import PATH_TYPES, is_host

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

UNREADABLE_PATH: Final = "?"
"""Stands for a path that cannot be read. No path of a valid Ingress is spelled so."""
_NO_NAME: Final = "(no name)"
_MAX_NAME: Final = 253
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._-]")
_NAMES_NOBODY: Final = re.compile(r"[*_]|[^;\s\x00-\x1f]*[;\s\x00-\x1f].*", re.DOTALL)
"""Texts that are the name of no host, nor one with a port or a scheme."""
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?[Zz]\Z")


class UnusableIngress(NamedTuple):
    """What can be read of an invalid Ingress.

    Attributes:
        ingress: Its name, annotations, hosts and paths, without backends and Secrets for TLS.
        has_all_annotations: Whether all its annotations could be read. Otherwise it may restrict anything.
        has_all_hosts: Whether all its hosts could be read.
        has_class: Whether its class could be read. Otherwise its class is unknown.
    """

    ingress: Ingress
    has_all_annotations: bool
    has_all_hosts: bool
    has_class: bool


def readable_part(value: Any) -> UnusableIngress:
    """Return what can be read of an invalid Ingress of any API version.

    Args:
        value: The document: mappings, lists and scalars.
    """
    document = value if isinstance(value, dict) else {}
    metadata, spec = _mapping(document.get("metadata")), _mapping(document.get("spec"))
    texts = metadata.get("annotations")
    annotations = {} if texts is None else _annotations(texts)
    known = annotations if annotations is not None else {}
    class_name, rules = spec.get("ingressClassName"), spec.get("rules")
    has_backend = any(spec.get(key) is not None for key in ("defaultBackend", "backend"))
    read = [_rule(entry) for entry in rules] if isinstance(rules, list | tuple) else []
    has_all_annotations = annotations is not None and len(known) == len(texts or ())
    return UnusableIngress(
        Ingress(
            metadata=_metadata(metadata, known),
            spec=IngressSpec(
                ingress_class_name=class_name if isinstance(class_name, str) else None,
                default_backend=IngressBackend() if has_backend else None,
                tls=_tls(spec.get("tls")),
                rules=tuple(rule for rule in read if rule is not None and rule is not _OF_NOBODY),
            ),
        ),
        has_all_annotations=has_all_annotations and isinstance(document.get("metadata"), dict),
        has_all_hosts=None not in read and (bool(read) or (has_backend and not rules)),
        has_class=isinstance(class_name, str) or (class_name is None and bool(spec) and has_all_annotations),
    )


def named_apart(known: Iterable[UnusableIngress], names: Container[ObjectName]) -> dict[ObjectName, UnusableIngress]:
    """Return invalid Ingresses by name. A name that is in `names`, or occurs again, gets a number."""
    apart: dict[ObjectName, UnusableIngress] = {}
    for part in known:
        metadata = part.ingress.metadata
        name, number = ObjectName(metadata.namespace, metadata.name), 1
        while name in names or name in apart:
            number += 1
            name = ObjectName(metadata.namespace, f"{metadata.name} ({number})")
        ingress = msgspec.structs.replace(part.ingress, metadata=msgspec.structs.replace(metadata, name=name.name))
        apart[name] = part._replace(ingress=ingress)
    return apart


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _metadata(metadata: dict[Any, Any], annotations: dict[str, str]) -> ObjectMeta:
    name, namespace, created = (metadata.get(key) for key in ("name", "namespace", "creationTimestamp"))
    namespace = namespace or "default"
    return ObjectMeta(
        name=name if isinstance(name, str) and is_subdomain(name) else _printable_name(name),
        namespace=namespace if isinstance(namespace, str) and is_label(namespace) else _printable_name(namespace),
        creation_timestamp=created if isinstance(created, str) and _TIME.match(created) else None,
        annotations=annotations,
    )


def _printable_name(name: Any) -> str:
    """Return a name for messages, which no valid object can have."""
    text = _UNUSUAL.sub("?", name)[:_MAX_NAME] if isinstance(name, str) else ""
    return text if text and not is_subdomain(text) else f"{text}{_NO_NAME}"


def _annotations(texts: Any) -> dict[str, str] | None:
    """Return annotations; None if they cannot be read. A value that is not a text counts as its JSON text."""
    if not isinstance(texts, dict):
        return None
    known: dict[str, str] = {}
    for key, value in texts.items():
        try:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            text.encode()
        except (UnicodeEncodeError, msgspec.EncodeError, TypeError, ValueError, RecursionError):
            continue
        if isinstance(key, str):
            known[key] = text
    return known


def _tls(entries: Any) -> tuple[IngressTLS, ...]:
    """Return one entry if there is any: its hosts then keep TLS."""
    return (IngressTLS(),) if entries else ()


_OF_NOBODY: Final = IngressRule()


def _rule(entry: Any) -> IngressRule | None:
    """Return the host and the paths of a rule; None if the host cannot be read."""
    if not isinstance(entry, dict):
        return None
    host, http = entry.get("host"), entry.get("http")
    text = "" if host is None else host.lower() if isinstance(host, str) else None
    if text is not None and _NAMES_NOBODY.fullmatch(text):
        return _OF_NOBODY
    if text is None or (text and not is_host(text)):
        return None
    if http is None:
        return IngressRule(host=text)
    paths = http.get("paths") if isinstance(http, dict) else None
    read = [_path(path) for path in paths] if isinstance(paths, list | tuple) else []
    return IngressRule(host=text, http=HTTPIngressRuleValue(paths=tuple(read) or (_path(None),)))


def _path(entry: Any) -> HTTPIngressPath:
    known = entry if isinstance(entry, dict) else {"path": None}
    text, kind = known.get("path", "/"), known.get("pathType")
    return HTTPIngressPath(path=_path_text(text), path_type=kind if kind in PATH_TYPES else "Prefix")


def _path_text(text: Any) -> str:
    if not isinstance(text, str):
        return UNREADABLE_PATH
    try:
        text.encode()
    except UnicodeEncodeError:
        return UNREADABLE_PATH
    return text or "/"
