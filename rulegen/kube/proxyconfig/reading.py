"""Reads a document as a KubeProxyConfiguration: returns unknown fields; errors are the same as in kube-proxy."""

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
    """Return the configuration in a parsed document, and the paths of its unknown fields.

    Args:
        document: Mappings, lists and scalars.
        source: Its file, for messages.
        is_whole: Whether the configuration is complete, so that rules between fields are checked too. False if options
            of the command line are merged into it later.
        modes: All modes, each with the sections that it reads.

    Raises:
        ConfigError: The document is not a configuration, or kube-proxy would reject it; the message names all faults.
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
            hint="this ConfigMap has no text with the key config.conf; that of kube-proxy has:"
            " `kubectl -n kube-system get configmap kube-proxy -o yaml`"
            if written[1:] == ("ConfigMap",)
            else f"begin it with apiVersion: {API_VERSION} and kind: {KIND}",
        )
    try:
        config = msgspec.convert(_without_nulls(document), KubeProxyConfiguration)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{source}: {_message_of(error)}") from None
    faults = [*refusals(config, modes), *(joint_refusals(config, modes) if is_whole else ())]
    if faults:
        raise ConfigError("; ".join(f"{source}: {fault}" for fault in faults))
    return config, tuple(_unknown(document, KubeProxyConfiguration, ""))


def _shown(value: object) -> str:
    return printable(value) if isinstance(value, str) else described(value)


def _message_of(error: Exception) -> str:
    """Return the message of an error of msgspec with the path first, like all other faults."""
    message = printable(str(error).replace("`", ""), 300)
    words, at, path = message.rpartition(" - at $.")
    return f"{path}: {words[:1].lower()}{words[1:]}" if at else message


def _without_nulls(value: Any) -> Any:
    """Return a value without null fields: they count as missing."""
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
