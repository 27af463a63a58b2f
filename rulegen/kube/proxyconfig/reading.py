"""A document read as KubeProxyConfiguration: unknown fields are warned of, what kube-proxy rejects is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.errors import ConfigError
from rulegen.kube.objects.structs import Object
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND, KubeProxyConfiguration
from rulegen.kube.proxyconfig.modes import MODES
from rulegen.kube.proxyconfig.validation import joint_refusals, refusals
from rulegen.text import described, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.kube.proxyconfig.modes import ModeSections


def read_config(
    document: object, source: str, *, is_whole: bool = True, modes: Mapping[str, ModeSections] = MODES
) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
    """Return the configuration that a parsed document holds, and the paths of the fields that nobody knows.

    Args:
        document: Mappings, lists and scalars.
        source: Its file, for messages.
        is_whole: Whether nothing else is put over it: then fields must fit together, too.
        modes: The modes that there are, and which sections each reads.

    Raises:
        ConfigError: It is none, or kube-proxy would reject it; the message names all faults.
    """
    if not isinstance(document, dict):
        raise ConfigError(
            f"{source}: expected a {KIND}, not {described(document)}", hint=f"begin it with apiVersion: {API_VERSION}"
        )
    written = tuple(document.get(key, "") for key in ("apiVersion", "kind"))
    if written != (API_VERSION, KIND):
        instead = " ".join(map(_shown, written)).strip() or "nothing"
        raise ConfigError(
            f"{source}: expected {API_VERSION} {KIND}, not {instead}",
            hint="a ConfigMap holds the configuration as a text: fetch that alone, with `kubectl -n kube-system get"
            " configmap kube-proxy -o jsonpath='{.data.config\\.conf}'`"
            if written[1:] == ("ConfigMap",)
            else f"begin it with apiVersion: {API_VERSION} and kind: {KIND}",
        )
    try:
        config = msgspec.convert(_without_nulls(document), KubeProxyConfiguration)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{source}: {_told(error)}") from None
    faults = [*refusals(config, modes), *(joint_refusals(config, modes) if is_whole else ())]
    if faults:
        raise ConfigError("; ".join(f"{source}: {fault}" for fault in faults))
    return config, tuple(_unknown(document, KubeProxyConfiguration, ""))


def _shown(value: object) -> str:
    return printable(value) if isinstance(value, str) else described(value)


def _told(error: Exception) -> str:
    """Return what msgspec says with the path first, as all other faults have it."""
    message = printable(str(error).replace("`", ""), 300)
    words, at, path = message.rpartition(" - at $.")
    return f"{path}: {words[:1].lower()}{words[1:]}" if at else message


def _without_nulls(value: Any) -> Any:
    """A null is an absent field."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _unknown(document: Mapping[Any, Any], struct: type[Object], path: str) -> Iterator[str]:
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(struct)}
    for key, value in document.items():
        if key not in fields:
            yield f"{path}{key}"
        elif isinstance(value, dict) and isinstance(fields[key], type) and issubclass(fields[key], Object):
            yield from _unknown(value, fields[key], f"{path}{key}.")
