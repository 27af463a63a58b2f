"""A running HAProxy gets changed endpoints at once; all else waits for the whole configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.haproxy import worker
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.addresses import ServiceAddresses
from tests.host.haproxy import test_haproxy_runtime as runtime
from tests.host.haproxy.test_haproxy_runtime import POD, PORTS, answers, ask, is_as_on_disk
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, ingress, path, rule, service, site, world

pytestmark = [pytest.mark.slow, needs_root]
pods, engine = runtime.pods, runtime.engine

WEB, API = ObjectName("default", "web"), ObjectName("default", "api")


class Cluster:
    """A cluster as the agent sees it: what has not changed stays the same object."""

    def __init__(self, engine, *objects: KubeObject) -> None:
        self.engine = engine
        made = world(*objects)
        addresses = ServiceAddresses.of_services((name, known.service) for name, known in made.services.items())
        self.world = replace(made, addresses=addresses)
        self.site = None

    def serve(self) -> DeployAction:
        self.site = self.engine.check(self.world, self.engine.observe(), self.site)
        return self.engine.deploy(self.site).action

    def change(self, *slices: KubeObject) -> None:
        services = dict(self.world.services)
        for each in slices:
            name = ObjectName("default", each.metadata.labels["kubernetes.io/service-name"])
            services[name] = replace(services[name], slices=(each,))
        self.world = replace(self.world, services=services)

    def move(self, *names: ObjectName) -> bool:
        return self.engine.move(self.site, self.world, names)


def _web(*numbers: int) -> KubeObject:
    return endpoints("web", [POD.format(number) for number in numbers], ports=PORTS)


def _pods(*numbers: int) -> set[str]:
    return {POD.format(number) for number in numbers}


@pytest.fixture
def cluster(engine) -> Cluster:
    api = (
        service("api"),
        endpoints("api", [POD.format(90)], ports=PORTS),
        ingress("api", rule("api.test", path(to="api"))),
    )
    canary = ingress("canary", rule("site.test"), annotations={"canary": "true", "canary-by-header": "x-new"})
    made = Cluster(engine, service("web"), _web(1, 2), site(), canary, site("sticky.test", affinity="cookie"), *api)
    assert made.serve() is DeployAction.STARTED
    return made


def test_changed_endpoints_are_served_at_once_and_the_files_follow(cluster):
    before = runtime.workers(cluster.engine)

    cluster.change(_web(2, 3, 4))
    assert cluster.move(WEB)
    assert answers() == answers(host="sticky.test") == answers(x_new="always") == _pods(2, 3, 4)
    assert answers(host="api.test") == _pods(90)
    assert not is_as_on_disk(cluster.engine)

    assert cluster.serve() is DeployAction.UPDATED
    assert is_as_on_disk(cluster.engine)
    assert answers() == _pods(2, 3, 4)
    assert runtime.workers(cluster.engine) == before


def test_several_moves_follow_each_other_and_one_may_lead_back(cluster):
    for numbers in ((3,), (4, 5), (1, 2)):
        cluster.change(_web(*numbers))
        assert cluster.move(WEB)
        assert answers() == _pods(*numbers)
    cluster.serve()
    assert is_as_on_disk(cluster.engine)


def test_a_service_with_no_endpoint_left_waits_for_the_whole_configuration(cluster):
    cluster.change(_web())
    assert not cluster.move(WEB)
    assert answers() == _pods(1, 2)
    cluster.serve()
    assert ask()[0] == 503


def test_an_endpoint_that_must_not_be_used_is_not_moved_to(cluster):
    cluster.change(endpoints("web", ["169.254.169.254"], ports=PORTS))
    assert not cluster.move(WEB)
    assert answers() == _pods(1, 2)


def test_an_unknown_service_and_an_unserved_configuration_are_not_moved(cluster):
    assert not cluster.move(ObjectName("default", "none"))
    served = cluster.site
    cluster.change(_web(3))
    cluster.site = cluster.engine.check(cluster.world, None, served)
    assert not cluster.move(WEB)
    assert answers() == _pods(1, 2)


def test_a_worker_of_another_configuration_is_not_changed(cluster):
    with worker.connected(cluster.engine.service.folder) as link:
        worker.confirm(link, "0" * 32)
    cluster.change(_web(3))
    assert not cluster.move(WEB)
    assert answers() == _pods(1, 2)
