"""The options of `rulegen run` about published addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.errors import ConfigError
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.net import parse_address

if TYPE_CHECKING:
    from rulegen.agent.status.setup import Publishing


def chosen_publishing(chosen: dict[str, Any], ingress_class: str) -> Publishing:
    """Return the options about publishing; they are removed from `chosen`.

    Raises:
        ConfigError: An address or a namespace is invalid.
    """
    from rulegen.agent.status.setup import Publishing  # noqa: PLC0415 - loads the client and netlink

    addresses = tuple(text.strip() for given in chosen.pop("publish_status_address") for text in given.split(","))
    for address in addresses:
        if not _is_address(address) and not is_subdomain(address):
            raise ConfigError(
                f"--publish-status-address: {address!r} is neither an address nor a name such as lb.example"
            )
    service = chosen.pop("publish_service")
    if service is not None and addresses:
        raise ConfigError("--publish-service and --publish-status-address exclude each other", hint="give one of them")
    namespace = chosen.pop("lease_namespace") or ""
    if namespace and not is_label(namespace):
        raise ConfigError(f"--lease-namespace: {namespace!r} is not the name of a namespace")
    return Publishing(
        ingresses=chosen.pop("update_status"),
        services=chosen.pop("publish_service_status"),
        group=ingress_class,
        addresses=addresses,
        service=service,
        internal=chosen.pop("report_node_internal_ip_address"),
        withdraws=chosen.pop("update_status_on_shutdown"),
        namespace=namespace,
    )


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True
