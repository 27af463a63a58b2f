"""Lists of all objects that networking on a node needs, requested from an API server as kube-proxy does.

Secrets and ConfigMaps are never listed, because that needs the right to read all: each is requested by name.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import msgspec

from rulegen.apiserver import limits
from rulegen.apiserver.limits import MAX_PAGES, MAX_TOKEN, TooLargeError
from rulegen.apiserver.transport.client import ApiServer
from rulegen.apiserver.transport.failures import ApiRefusedError
from rulegen.errors import HostError, InputError, Rejected
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import (
    ConfigMap,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    ServiceCIDR,
)
from rulegen.kube.reading.decode import decode_list, decode_object
from rulegen.kube.reading.json_text import value_count
from rulegen.kube.snapshot.pods import CONTROLLER, MANAGED_BY_LABEL
from rulegen.kube.syntax import is_label, is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rulegen.apiserver.budget import Budget
    from rulegen.apiserver.limits import ApiTerms
    from rulegen.errors import Warnings
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded
    from rulegen.kube.reading.decode import ListPage

PAGE_SIZE: Final = 500
"""Objects in one answer. The server keeps a page in memory, and so does rulegen."""

MAX_PAGE_VALUES: Final = 1_500_000
"""Maximum number of values of one page; 500 slices of 100 endpoints have a million."""

SERVICE_NAME: Final = "kubernetes.io/service-name"


class Collection(NamedTuple):
    """A kind of object, and how to request the objects of all namespaces.

    Attributes:
        kind: The struct of its objects.
        path: Path of the collection.
        noun: Name of the kind in an RBAC rule.
        labels: A label selector.
        fields: A field selector; if an older server rejects it, it is omitted.
        packs: Whether a watch reports Services and EndpointSlices packed.
        is_dispensable: Whether a watch goes on without the objects if the server lacks or denies them.
    """

    kind: type[KubeObject]
    path: str
    noun: str
    labels: str = ""
    fields: str = ""
    packs: bool = False
    is_dispensable: bool = False


SERVICES: Final = Collection(
    Service, "/api/v1/services", "services", "!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"
)
SLICES: Final = Collection(
    EndpointSlice,
    "/apis/discovery.k8s.io/v1/endpointslices",
    "endpointslices.discovery.k8s.io",
    "!service.kubernetes.io/headless",
)
INGRESSES: Final = Collection(Ingress, "/apis/networking.k8s.io/v1/ingresses", "ingresses.networking.k8s.io")
INGRESS_CLASSES: Final = Collection(
    IngressClass, "/apis/networking.k8s.io/v1/ingressclasses", "ingressclasses.networking.k8s.io"
)
NAMESPACES: Final = Collection(Namespace, "/api/v1/namespaces", "namespaces")
SERVICE_CIDRS: Final = Collection(
    ServiceCIDR,
    "/apis/networking.k8s.io/v1/servicecidrs",
    "servicecidrs.networking.k8s.io",
    is_dispensable=True,
)
NODES: Final = "/api/v1/nodes"
ALL_NODES: Final = Collection(Node, NODES, "nodes")
PODS: Final = Collection(Pod, "/api/v1/pods", "pods", fields="status.phase!=Succeeded,status.phase!=Failed")
"""Pods that have not finished. Each is kept without the fields that no endpoint depends on."""
FOREIGN_SLICES: Final = f"{MANAGED_BY_LABEL}!={CONTROLLER}"
"""Label selector of the EndpointSlices that are not derived from Pods."""
SHOWN_NAMES: Final = 3


def read_cluster(
    kubeconfig: str | None = None,
    context: str | None = None,
    node: str | None = None,
    *,
    every_node: bool = False,
    ingress: bool = False,
    namespaces: bool = False,
    service_cidrs: bool = False,
    warnings: Warnings | None = None,
    page_size: int = PAGE_SIZE,
    budget: Budget | None = None,
) -> list[Decoded | Rejected]:
    """Return all Services, their EndpointSlices, and one Node, each valid or with its faults.

    If the cluster has no such Node, some of its Nodes are returned instead.

    With `ingress`, also return all Ingresses and IngressClasses, and Services that Ingresses may name although
    kube-proxy ignores them: headless ones, and those of another proxy.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        node: The Node to read; none by default.
        every_node: Whether to read all Nodes.
        ingress: Whether Ingresses are served.
        namespaces: Whether labels of namespaces select Ingresses.
        service_cidrs: Whether the mode needs the ranges of ClusterIPs. If they cannot be read, a warning says so.
        warnings: Receives warnings about missing parts.
        page_size: Number of objects in one request.
        budget: Limits of the command.

    Raises:
        HostError: A list could not be read. No list is ever incomplete.
    """
    with ApiServer(kubeconfig, context, budget=budget) as server:
        if warnings is not None:
            for text in server.cautions():
                warnings.add(text)
        wanted = [SERVICES, SLICES]
        if ingress:
            wanted = [each._replace(labels="", fields="") for each in wanted]
        services, slices = (list_all(server, each, page_size) for each in wanted)
        objects = services + _owned(slices, services)
        if ingress:
            objects += list_all(server, INGRESSES, page_size) + list_all(server, INGRESS_CLASSES, page_size)
        if namespaces:
            objects += list_all(server, NAMESPACES, page_size)
        if service_cidrs:
            objects += _service_cidrs(server, page_size, warnings)
        if every_node:
            objects += list_all(server, ALL_NODES, page_size)
        elif node:
            objects += _node(server, node)
    return objects


def _service_cidrs(server: ApiServer, page_size: int, warnings: Warnings | None) -> list[Decoded | Rejected]:
    """Return the ranges of ClusterIPs; nothing before Kubernetes 1.33, or if they may not be read."""
    try:
        return list_all(server, SERVICE_CIDRS, page_size)
    except HostError as error:
        if warnings is not None:
            warnings.add(
                f"the ranges of ClusterIPs are unknown, so unused addresses in them are not dropped: {error.message};"
                " give them with --service-cidr"
            )
        return []


def read_nodes(kubeconfig: str | None = None, context: str | None = None, terms: ApiTerms | None = None) -> list[str]:
    """Return the names of the first Nodes of a cluster, at most one page of them.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        terms: As for `ApiServer`.

    Raises:
        HostError: They cannot be read.
    """
    with ApiServer(kubeconfig, context, terms=terms) as server:
        return [each.object.metadata.name for each in _some_nodes(server) if not isinstance(each, Rejected)]


def read_named(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    secrets: Iterable[ObjectName] = (),
    config_maps: Iterable[ObjectName] = (),
    warnings: Warnings | None = None,
    refused: set[ObjectKey] | None = None,
    budget: Budget | None = None,
) -> list[Decoded | Rejected]:
    """Return the Secrets and ConfigMaps of these names, each valid or with its faults, in order of name.

    Missing objects are not in the result. Denied ones are not either, because it is unknown whether they exist.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        secrets: Names of Secrets; duplicates are allowed.
        config_maps: Names of ConfigMaps; duplicates are allowed.
        warnings: Receives warnings about missing rights.
        refused: Receives the names of denied objects.
        budget: Limits of the command.

    Raises:
        HostError: A request failed for another reason than absence or a missing right.
    """
    wanted: list[tuple[type[KubeObject], list[ObjectName]]] = [
        (kind, sorted({name for name in names if is_label(name.namespace) and is_subdomain(name.name)}))
        for kind, names in ((Secret, secrets), (ConfigMap, config_maps))
    ]
    if not any(names for _, names in wanted):
        return []
    with ApiServer(kubeconfig, context, budget=budget) as server:
        objects: list[Decoded | Rejected] = []
        for kind, names in wanted:
            read, forbidden = _all_named(server, kind, names)
            objects += read
            if forbidden and refused is not None:
                refused.update(ObjectKey(kind.__name__, name) for name in forbidden)
            if forbidden and warnings is not None:
                warnings.add(_forbidden(server, kind, forbidden))
        return objects


def list_all(server: ApiServer, collection: Collection, page_size: int = PAGE_SIZE) -> list[Decoded | Rejected]:
    """Return all objects of a collection, in the server's order.

    If the list takes so long that the server's continue token expires (410), it is requested again as a whole. If its
    pages are too large, it is requested in smaller ones.

    Raises:
        HostError: The list could not be read completely.
    """
    doing = f"list {collection.noun}"
    parameters: dict[str, str | int] = {"limit": page_size}
    if collection.labels:
        parameters["labelSelector"] = collection.labels
    if collection.fields:
        parameters["fieldSelector"] = collection.fields
    objects: list[Decoded | Rejected] = []
    limit, until = server.budget.terms.page, time.monotonic() + limits.LIST_S
    for _ in range(MAX_PAGES):
        try:
            raw = server.get(collection.path, parameters, doing=doing, limit=limit, until=until)
            page = read_page(server.url, collection.kind, raw, keep=partial(server.budget.keep, url=server.url))
            del raw  # before the next page arrives
        except TooLargeError:
            if page_size <= 1:
                raise
            parameters.pop("continue", None)
            parameters["limit"] = page_size = max(1, page_size // 8)
            objects.clear()
            continue
        except ApiRefusedError as error:
            if error.status == 410 and "continue" in parameters:  # fewer pages take less time
                del parameters["continue"]
                parameters["limit"] = page_size = page_size * 4
            elif error.status == 400 and "fieldSelector" in parameters:
                del parameters["fieldSelector"]
            else:
                raise
            objects.clear()
            continue
        objects += page.objects
        objects += page.rejected
        token = page.continue_token
        if not token:
            return objects
        check_token(server.url, doing, token, parameters.get("continue"))
        parameters["continue"] = token
    raise HostError(
        f"{server.url}: {doing}: more than {MAX_PAGES} pages", hint="check that this is the address of an API server"
    )


def check_token(url: str, doing: str, token: str, before: str | int | None) -> None:
    """Return the continue token for the next page of a list.

    Raises:
        HostError: It is the same as the last one, or too long for a URL.
    """
    if token == before:
        raise HostError(f"{url}: {doing}: the server sends the same page again and again")
    if len(token) > MAX_TOKEN:
        raise HostError(f"{url}: {doing}: a continue token of more than {MAX_TOKEN} characters")


class _ListHead(msgspec.Struct):
    kind: str = ""


def read_page(
    url: str,
    kind: type[KubeObject],
    raw: bytes | bytearray,
    *,
    keep: Callable[[Sequence[Decoded | Rejected]], None] = lambda _: None,
    packs: bool = False,
) -> ListPage:
    """Return the objects of a page, and where the next page and a watch start.

    Args:
        url: Of the server, for messages.
        kind: Kind of the requested objects.
        raw: The body of the answer.
        keep: As for `decode_list`.
        packs: As for `decode_list`.

    Raises:
        TooLargeError: It has too many values.
        HostError: It is not a page of such a list; also for `{}`, which would count as an empty list.
    """
    expected = f"{kind.__name__}List"
    if len(raw) > MAX_PAGE_VALUES and value_count(raw) > MAX_PAGE_VALUES:
        words = f"a page of a {expected} with more than {MAX_PAGE_VALUES} values"
        raise TooLargeError(f"{url}: {words}", hint="check that this is the address of an API server")
    try:
        head = msgspec.json.decode(raw, type=_ListHead)
        if head.kind != expected:
            raise InputError(url, f"got {head.kind[:40]!r}, expected a {expected}")  # noqa: TRY301
        return decode_list(raw, kind, source=url, keep=keep, packs=packs)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        said = error.message if isinstance(error, InputError) else f"{url}: no {expected}: {error}"
        raise HostError(said, hint="check that this is the address of an API server") from error


def _owned(slices: list[Decoded | Rejected], services: list[Decoded | Rejected]) -> list[Decoded | Rejected]:
    """Return the slices without those of Services that were not requested, or were created after the request."""
    known = {_name(each) for each in services if not isinstance(each, Rejected)}
    return [each for each in slices if isinstance(each, Rejected) or _owner(each) in known]


def _name(each: Decoded) -> tuple[str, str]:
    return each.object.metadata.namespace, each.object.metadata.name


def _owner(each: Decoded) -> tuple[str, str]:
    metadata = each.object.metadata
    return metadata.namespace, metadata.labels.get(SERVICE_NAME, "")


def _node(server: ApiServer, node: str) -> list[Decoded | Rejected]:
    """Return this Node; if it does not exist, some existing Nodes for the error message."""
    try:
        raw = server.get(f"{NODES}/{quote(node, safe='')}", doing="get nodes")
    except ApiRefusedError as error:
        if error.status != 404:
            raise
    else:
        return [decode_object(raw, Node, source=server.url)]
    try:
        return _some_nodes(server)
    except ApiRefusedError as error:
        if error.status != 403:
            raise
        return []  # a role may allow one Node by its name, but no list


def _some_nodes(server: ApiServer) -> list[Decoded | Rejected]:
    page = read_page(server.url, Node, server.get(NODES, {"limit": PAGE_SIZE}, doing="list nodes"))
    return [*page.objects, *page.rejected]


def _all_named(
    server: ApiServer, kind: type[KubeObject], names: list[ObjectName]
) -> tuple[list[Decoded | Rejected], list[ObjectName]]:
    """Get objects by name; return the existing ones, and the names of the denied ones."""
    noun = f"{kind.__name__.lower()}s"
    objects: list[Decoded | Rejected] = []
    forbidden: list[ObjectName] = []
    until = time.monotonic() + limits.LIST_S
    for name in names:
        path = f"/api/v1/namespaces/{name.namespace}/{noun}/{name.name}"
        try:
            raw = server.get(path, doing=f"get {noun}", until=until)
        except ApiRefusedError as error:
            if error.status == 403:
                forbidden.append(name)
            elif error.status != 404:
                raise
        else:
            each = _named(server, kind, name, raw)
            server.budget.keep([each], server.url)
            objects.append(each)
    return objects, forbidden


def _forbidden(server: ApiServer, kind: type[KubeObject], names: list[ObjectName]) -> str:
    """Return one line about all denied objects, whatever their number."""
    noun = f"{kind.__name__.lower()}s"
    shown = ", ".join(str(name) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    where = ", ".join(sorted({name.namespace for name in names})[:SHOWN_NAMES])
    missing = f'this user needs a role there that allows "get" for "{noun}"'
    return f"{server.url}: not allowed to get {noun} in {where}: {shown}{more} cannot be read; {missing}"


def _named(server: ApiServer, kind: type[KubeObject], name: ObjectName, raw: bytearray) -> Decoded | Rejected:
    """Decode the answer to a request for one object.

    Raises:
        HostError: It is not that object: it has another kind or another name.
    """
    try:
        head = msgspec.json.decode(raw, type=_ListHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(
            f"{server.url}: no {kind.__name__}: {error}", hint="check that this is the address of an API server"
        ) from error
    if head.kind != kind.__name__:
        raise HostError(f"{server.url}: got {head.kind[:40]!r}, expected a {kind.__name__}")
    decoded = decode_object(raw, kind, source=server.url)
    if not isinstance(decoded, Rejected) and _name(decoded) != tuple(name):
        raise HostError(f"{server.url}: asked for {kind.__name__} {name} and got another object")
    return decoded
