"""With endpoints from Pods, Pods and Nodes are followed; what the EndpointSlice controller writes is not."""

from __future__ import annotations

import pytest

from rulegen.kube.endpoints_from import EndpointsFrom
from tests.apiserver.watch.objects import asked
from tests.apiserver.watching import soon

CONTROLLER = "endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io"
HEADLESS = "!service.kubernetes.io/headless"


def pod(name: str, phase: str = "Running") -> dict:
    return {"metadata": {"namespace": "shop", "name": name}, "status": {"phase": phase, "podIP": "10.0.0.1"}}


def slice_(name: str, manager: str) -> dict:
    labels = {"endpointslice.kubernetes.io/managed-by": manager, "kubernetes.io/service-name": "web"}
    return {"metadata": {"namespace": "shop", "name": name, "labels": labels}, "addressType": "IPv4", "endpoints": []}


def test_a_pod_that_finishes_is_gone(api, watch, seen):
    api.put("pods", pod("a"), pod("b"), pod("done", "Succeeded"))
    api.put("nodes", {"metadata": {"name": "node1"}}, {"metadata": {"name": "node2"}})
    watch(endpoints_from=EndpointsFrom.PODS, node="node1")
    assert (seen.names("Pod"), seen.names("Node")) == (["a", "b"], ["node1", "node2"])
    api.put("pods", pod("a", "Failed"), pod("c"))
    assert soon(lambda: seen.names("Pod") == ["b", "c"])


SELECTORS = [
    (EndpointsFrom.SLICES, False, HEADLESS, ["controller", "mine"]),
    (EndpointsFrom.PODS, False, f"{HEADLESS},{CONTROLLER}", ["mine"]),
    (EndpointsFrom.PODS, True, CONTROLLER, ["mine"]),
    (EndpointsFrom.AUTO, False, HEADLESS, ["controller", "mine"]),
]


@pytest.mark.parametrize(("source", "ingress", "labels", "names"), SELECTORS)
def test_slices_that_pods_replace_are_not_followed(api, watch, seen, source, ingress, labels, names):
    api.put("endpointslices", slice_("controller", "endpointslice-controller.k8s.io"), slice_("mine", "me"))
    watch(endpoints_from=source, node="node1", ingress=ingress)
    assert seen.names("EndpointSlice") == names
    (query,) = asked(api, "endpointslices", watched=False)
    assert query["labelSelector"] == labels
    assert bool(asked(api, "pods", watched=False)) == source.has_pods
    (query,) = asked(api, "nodes", watched=False)
    assert ("fieldSelector" in query) != source.has_pods
