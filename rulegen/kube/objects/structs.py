"""Kubernetes objects as structs, with only the fields that rulegen uses.

The structs are the schema: `msgspec` decodes into them, and `rulegen.kube.reading.shape_faults` uses them to find all
type faults of an object. Unknown fields are ignored, as by clients of the API. A JSON null is a missing field (as in
Go), except in lists. Optional fields and defaults are those of the API.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

IntOrString = int | str
Labels = dict[str, str]


class Object(Struct, frozen=True, gc=False, rename="camel", kw_only=True):
    """Base of all structs that are decoded from JSON or YAML; field names are camelCase there."""


class ObjectMeta(Object, frozen=True):
    """metadata of any object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Labels = field(default_factory=dict)
    annotations: Labels = field(default_factory=dict)


# -- Service -----------------------------------------------------------------------------------------------------------


class ServicePort(Object, frozen=True):
    """spec.ports[] of a Service. `target_port` and `app_protocol` are used only to derive endpoints from Pods."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    target_port: IntOrString = 0
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(Object, frozen=True):
    """spec.sessionAffinityConfig.clientIP."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Object, frozen=True):
    """spec.sessionAffinityConfig."""

    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(Object, frozen=True):
    """spec of a Service. `traffic_distribution` is used only to derive endpoints from Pods."""

    type: str = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    ip_families: tuple[str, ...] = field(default=())
    ip_family_policy: str | None = None
    ports: tuple[ServicePort, ...] = ()
    selector: Labels = field(default_factory=dict)
    external_ips: tuple[str, ...] = field(default=(), name="externalIPs")
    external_name: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    allocate_load_balancer_node_ports: bool = True
    traffic_distribution: str | None = None
    load_balancer_class: str | None = None


class LoadBalancerIngress(Object, frozen=True):
    """status.loadBalancer.ingress[]."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(Object, frozen=True):
    """status.loadBalancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class Condition(Object, frozen=True):
    """status.conditions[] of an object."""

    type: str = ""
    status: str = ""
    message: str = ""


class ServiceStatus(Object, frozen=True):
    """status of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object, frozen=True):
    """v1 Service."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


# -- EndpointSlice -----------------------------------------------------------------------------------------------------


class EndpointConditions(Object, frozen=True):
    """conditions of an endpoint. None is unknown: ready and serving then count as true, terminating as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Object, frozen=True):
    """hints.forZones[] and hints.forNodes[]: the name of a zone or node."""

    name: str = ""


class EndpointHints(Object, frozen=True):
    """hints of an endpoint."""

    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForZone, ...] = ()


class TargetReference(Object, frozen=True):
    """targetRef of an endpoint: its Pod."""

    kind: str = ""
    name: str = ""


class SliceEndpoint(Object, frozen=True):
    """endpoints[] of an EndpointSlice. Only the first address is used (all are equivalent, KEP-752)."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hints: EndpointHints = EndpointHints()
    node_name: str | None = None
    zone: str | None = None
    target_ref: TargetReference | None = None


class SlicePort(Object, frozen=True):
    """ports[] of an EndpointSlice. A missing name is the empty name. Proxies ignore a port without a number."""

    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"


class EndpointSlice(Object, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: ObjectMeta
    address_type: str = ""
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()


# -- core Endpoints ----------------------------------------------------------------------------------------------------


class EndpointAddress(Object, frozen=True):
    """subsets[].addresses[] and subsets[].notReadyAddresses[]."""

    ip: str = ""
    node_name: str | None = None
    target_ref: TargetReference | None = None


class EndpointPort(Object, frozen=True):
    """subsets[].ports[]."""

    name: str = ""
    port: int = 0
    protocol: str = "TCP"


class EndpointSubset(Object, frozen=True):
    """subsets[] of core Endpoints."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Object, frozen=True):
    """v1 Endpoints."""

    metadata: ObjectMeta
    subsets: tuple[EndpointSubset, ...] = ()


# -- Pod, Node, Namespace, ServiceCIDR ---------------------------------------------------------------------------------


class ContainerPort(Object, frozen=True):
    """spec.containers[].ports[] of a Pod."""

    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class Container(Object, frozen=True):
    """spec.containers[] of a Pod."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str | None = None


class PodSpec(Object, frozen=True):
    """spec of a Pod."""

    node_name: str = ""
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(Object, frozen=True):
    """status.podIPs[] of a Pod."""

    ip: str = ""


class PodStatus(Object, frozen=True):
    """status of a Pod."""

    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")
    host_ip: str = field(default="", name="hostIP")
    conditions: tuple[Condition, ...] = ()


class Pod(Object, frozen=True):
    """v1 Pod."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Taint(Object, frozen=True):
    """spec.taints[] of a Node."""

    key: str = ""


class NodeSpec(Object, frozen=True):
    """spec of a Node."""

    taints: tuple[Taint, ...] = ()
    pod_cidr: str = field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = field(default=(), name="podCIDRs")


class NodeAddress(Object, frozen=True):
    """status.addresses[] of a Node."""

    type: str = ""
    address: str = ""


class NodeStatus(Object, frozen=True):
    """status of a Node."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(Object, frozen=True):
    """v1 Node."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Namespace(Object, frozen=True):
    """v1 Namespace; only its labels are used."""

    metadata: ObjectMeta


class ServiceCIDRSpec(Object, frozen=True):
    """spec of a ServiceCIDR."""

    cidrs: tuple[str, ...] = ()


class ServiceCIDR(Object, frozen=True):
    """networking.k8s.io/v1 ServiceCIDR: the prefixes of ClusterIPs."""

    metadata: ObjectMeta
    spec: ServiceCIDRSpec = ServiceCIDRSpec()


# -- Ingress -----------------------------------------------------------------------------------------------------------


class ServiceBackendPort(Object, frozen=True):
    """port of the Service of a backend: a name, or a number if the name is empty."""

    name: str = ""
    number: int = 0


class IngressServiceBackend(Object, frozen=True):
    """service of a backend."""

    name: str = ""
    port: ServiceBackendPort = ServiceBackendPort()


class TypedReference(Object, frozen=True):
    """resource of a backend: an object of any kind; rulegen serves none."""

    kind: str = ""
    name: str = ""
    api_group: str | None = None


class IngressBackend(Object, frozen=True):
    """spec.defaultBackend, and backend of a path: a Service or a resource."""

    service: IngressServiceBackend | None = None
    resource: TypedReference | None = None


class HTTPIngressPath(Object, frozen=True):
    """spec.rules[].http.paths[]."""

    path: str = ""
    path_type: str | None = None
    backend: IngressBackend = IngressBackend()


class HTTPIngressRuleValue(Object, frozen=True):
    """spec.rules[].http."""

    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Object, frozen=True):
    """spec.rules[]; a rule without a host applies to all hosts."""

    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Object, frozen=True):
    """spec.tls[]."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Object, frozen=True):
    """spec of an Ingress."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class IngressStatus(Object, frozen=True):
    """status of an Ingress."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Ingress(Object, frozen=True):
    """networking.k8s.io/v1 Ingress. Its status is used only to publish addresses."""

    metadata: ObjectMeta
    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


class IngressClassSpec(Object, frozen=True):
    """spec of an IngressClass."""

    controller: str = ""


class IngressClass(Object, frozen=True):
    """networking.k8s.io/v1 IngressClass."""

    metadata: ObjectMeta
    spec: IngressClassSpec = IngressClassSpec()


class Secret(Object, frozen=True):
    """v1 Secret: values in `data` are base64, values in `string_data` are plain. They are never shown or logged."""

    metadata: ObjectMeta
    type: str = ""
    data: Labels = field(default_factory=dict)
    string_data: Labels = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return only the name, so that no traceback can put a value into a message or a log."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return only the name, for libraries that print structs field by field."""
        return [("name", f"{self.metadata.namespace}/{self.metadata.name}")]


class ConfigMap(Object, frozen=True):
    """v1 ConfigMap: settings or headers by key."""

    metadata: ObjectMeta
    data: Labels = field(default_factory=dict)
