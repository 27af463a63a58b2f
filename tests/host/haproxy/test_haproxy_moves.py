"""A running HAProxy gets changed endpoints, and what needs no reload, at once; its files follow."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.host.haproxy import worker
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.addresses import ServiceAddresses
from tests.host.haproxy import running
from tests.host.haproxy.running import POD, PORTS, answers, ask, is_as_on_disk
from tests.rights import needs_root
from tests.strategies.ingresses import endpoints, ingress, path, rule, service, site, tls, tls_secret, world

pytestmark = [pytest.mark.slow, needs_root]

WEB, API = ObjectName("default", "web"), ObjectName("default", "api")


class Cluster:
    """A cluster as the agent sees it: what has not changed stays the same object; a Service is read with its slices."""

    def __init__(self, engine, *objects: KubeObject) -> None:
        self.engine = engine
        made = world(*objects)
        addresses = ServiceAddresses.of_services((name, known.service) for name, known in made.services.items())
        self.world = msgspec.structs.replace(made, addresses=addresses)
        self.site = None

    def serve(self) -> DeployAction:
        self.site = self.engine.check(self.world, self.engine.observe(), self.site)
        return self.engine.deploy(self.site).action

    def change(self, *slices: KubeObject) -> None:
        services = dict(self.world.services)
        for each in slices:
            name = ObjectName("default", each.metadata.labels["kubernetes.io/service-name"])
            read_again = msgspec.structs.replace(services[name].service)
            services[name] = replace(services[name], service=read_again, slices=(each,))
        self.world = msgspec.structs.replace(self.world, services=services)

    def move(self, *names: ObjectName) -> bool:
        return self.engine.move(self.site, self.world, names)

    def give(self, *objects: KubeObject) -> bool:
        """Add objects, and have HAProxy take them at once."""
        more = world(*objects)
        services, ingresses = {**self.world.services, **more.services}, {**self.world.ingresses, **more.ingresses}
        secrets = {**self.world.secrets, **more.secrets}
        addresses = ServiceAddresses.of_services((name, known.service) for name, known in services.items())
        self.world = msgspec.structs.replace(
            self.world, services=services, ingresses=ingresses, secrets=secrets, addresses=addresses
        )
        return self.engine.give(self.site, self._decided)

    def _decided(self):
        self.site = self.engine.check(self.world, None, self.site)
        return self.site


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
    before = running.workers(cluster.engine)

    cluster.change(_web(2, 3, 4))
    assert cluster.move(WEB)
    assert answers() == answers(host="sticky.test") == answers(x_new="always") == _pods(2, 3, 4)
    assert answers(host="api.test") == _pods(90)
    assert not is_as_on_disk(cluster.engine)

    assert cluster.serve() is DeployAction.UPDATED
    assert is_as_on_disk(cluster.engine)
    assert answers() == _pods(2, 3, 4)
    assert running.workers(cluster.engine) == before


@pytest.mark.parametrize("restarts", [False, True])
def test_a_move_without_its_files_is_mended_by_the_next_agent(cluster, restarts):
    cluster.change(_web(3))
    assert cluster.move(WEB)
    if restarts:
        running.restart(cluster.engine)
    assert answers() == (_pods(1, 2) if restarts else _pods(3))

    cluster.engine, cluster.site = HaproxyEngine(cluster.engine.service, cluster.engine.options), None
    assert cluster.serve() is DeployAction.UPDATED
    assert answers() == _pods(3)
    assert is_as_on_disk(cluster.engine)


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


def _new(name: str, number: int) -> list[KubeObject]:
    """Return a Service that no path has used, and a host for it."""
    web = endpoints(name, [POD.format(number)], ports=PORTS)
    return [service(name), web, ingress(name, rule(f"{name}.test", path(to=name)))]


def test_hosts_ports_and_certificates_are_served_before_their_files(cluster):
    before = running.workers(cluster.engine)
    safe = ingress("safe", rule("safe.test"), tls=[tls("cert", "safe.test")], annotations={"ssl-redirect": "false"})

    assert cluster.give(*_new("new", 50))
    assert answers(host="new.test") == _pods(50)
    assert cluster.give(*_new("a", 60), safe, tls_secret("cert", "safe.test"))
    assert (answers(host="a.test"), answers(host="new.test"), answers()) == (_pods(60), _pods(50), _pods(1, 2))
    assert running.presented("safe.test") != running.presented("site.test")
    cluster.change(endpoints("new", [POD.format(51)], ports=PORTS))
    assert cluster.move(ObjectName("default", "new"))
    assert answers(host="new.test") == _pods(51)
    assert not is_as_on_disk(cluster.engine)

    assert cluster.serve() is DeployAction.UPDATED
    assert is_as_on_disk(cluster.engine)
    assert (answers(host="a.test"), answers(host="new.test")) == (_pods(60), _pods(51))
    assert running.workers(cluster.engine) == before


def test_paths_that_come_change_and_go_are_served_before_their_files(cluster):
    assert cluster.give(*_new("new", 50))
    for paths in ({"/x/y": "new", "/x": "api", "/": "web"}, {"/x": "web", "/": "new"}, {"/": "web"}):
        assert cluster.give(ingress("new", rule("new.test", *(path(where, to=name) for where, name in paths.items()))))
        got = [answers(host="new.test", target=where) for where in ("/x/y/z", "/x", "/z")]
        numbers = {"web": _pods(1, 2), "new": _pods(50), "api": _pods(90)}
        leads = [next(to for where, to in paths.items() if asked.startswith(where)) for asked in ("/x/y/z", "/x", "/z")]
        assert got == [numbers[name] for name in leads]
    before = running.workers(cluster.engine)
    cluster.serve()
    assert is_as_on_disk(cluster.engine)
    assert running.workers(cluster.engine) == before


def test_endpoints_that_came_back_with_other_changes_are_as_before(cluster):
    cluster.change(_web(3))
    assert cluster.move(WEB)
    cluster.change(_web(1, 2))
    assert cluster.give(*_new("new", 50))
    assert (answers(), answers(host="new.test")) == (_pods(1, 2), _pods(50))


@pytest.mark.parametrize("restarts", [False, True])
def test_after_a_killed_agent_the_next_one_sees_and_mends(cluster, restarts):
    """With a restart of HAProxy: it reads the files, which have less."""
    assert cluster.give(*_new("new", 50))
    if restarts:
        running.restart(cluster.engine)
    after = HaproxyEngine(cluster.engine.service, cluster.engine.options)
    observed = after.observe()
    chosen = after.check(cluster.world, observed)
    items = after.plan(chosen, observed).items
    assert {"server", "map"} <= {item.kind for item in items if item.drift} or restarts
    assert "file" in {item.kind for item in items}
    assert after.deploy(chosen).action is DeployAction.UPDATED
    assert answers(host="new.test") == _pods(50)
    assert is_as_on_disk(after)


def test_what_needs_a_reload_or_was_not_served_is_not_given(cluster):
    files = cluster.engine.observe()
    other = ingress("other", rule("other.test"), annotations={"proxy-next-upstream": "http_502"})
    assert not cluster.give(other)
    assert (ask("other.test")[0], cluster.engine.observe()) == (404, files)
    assert not cluster.give(*_new("new", 50))
    cluster.engine.reloaded_at = -math.inf  # so that a reload need not wait
    cluster.serve()
    assert (ask("other.test")[0], answers(host="new.test")) == (200, _pods(50))


def test_a_worker_of_another_configuration_is_not_changed(cluster):
    with worker.connected(cluster.engine.service.folder) as link:
        worker.confirm(link, "0" * 32)
    cluster.change(_web(3))
    assert not cluster.move(WEB)
    assert answers() == _pods(1, 2)
