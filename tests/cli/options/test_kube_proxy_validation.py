"""What kube-proxy 1.36 refuses is refused, and what it warns about is warned about: a row for each of its checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rulegen.cli.main import main
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from tests.cli.test_plan import BLOG

BASE = {"clusterCIDR": "10.244.0.0/16", "nodePortAddresses": ["primary"]}
DUAL_CIDRS = "10.244.0.0/16,fd00:10:244::/56"
SINGLE = {"hostname": "node1", "interfaces": [{"name": "eth0", "addresses": ["192.168.50.10/24"]}], "ipv6": False}
DUAL = {"hostname": "node1", "interfaces": [{"name": "eth0", "addresses": ["192.168.50.10/24", "fd00:50::10/64"]}]}
REFUSED, WARNED, ACCEPTED = "refused", "warned", "accepted"

# Each row: what the configuration has over BASE (None takes a field away), what becomes of it, and what is said.
ROWS: list[tuple[dict, str, str]] = [
    ({"featureGates": {"NoSuchGate": True}}, REFUSED, "featureGates.NoSuchGate: kube-proxy 1.36 has no feature gate"),
    ({"featureGates": {"AllowServiceExternalIp": True}}, REFUSED, "did you mean AllowServiceExternalIPs?"),
    ({"featureGates": {"NFTablesProxyMode": False}}, REFUSED, "locked to true"),
    ({"featureGates": {"AllowServiceLBStatusOnNonLB": True}}, REFUSED, "locked to false"),
    ({"featureGates": {"NFTablesProxyMode": True, "AllAlpha": True}}, ACCEPTED, "locked"),
    ({"featureGates": {"AllowServiceExternalIPs": False}}, ACCEPTED, "featureGates"),
    ({"iptables": {"masqueradeBit": -1}}, REFUSED, "iptables.masqueradeBit: -1 is not a bit"),
    ({"iptables": {"masqueradeBit": 32}}, REFUSED, "iptables.masqueradeBit: 32 is not a bit"),
    ({"iptables": {"masqueradeBit": 31}}, ACCEPTED, "masqueradeBit"),
    ({"iptables": {"masqueradeBit": 0}}, ACCEPTED, "masqueradeBit"),
    ({"nftables": {"masqueradeBit": 32}}, ACCEPTED, "masqueradeBit"),
    *(
        ({"mode": mode, "ipvs": {field: "-1s"}}, REFUSED if mode == "ipvs" else ACCEPTED, f"ipvs.{field}: ")
        for mode in ("ipvs", "iptables")
        for field in ("tcpTimeout", "tcpFinTimeout", "udpTimeout")
    ),
    ({"mode": "ipvs", "ipvs": {"tcpTimeout": "0s"}}, ACCEPTED, "tcpTimeout"),
    ({"mode": "ipvs", "ipvs": {"tcpTimeout": "999999h"}}, REFUSED, "the kernel's limit"),
    ({"mode": "ipvs", "ipvs": {"excludeCIDRs": ["10.0.0.0"]}}, REFUSED, "ipvs.excludeCIDRs[0]: '10.0.0.0' is not"),
    ({"ipvs": {"excludeCIDRs": ["10.0.0.0"]}}, WARNED, "it has no effect in iptables mode"),
    *(
        ({"conntrack": {field: value}}, REFUSED, f"conntrack.{field}: ")
        for field, value in (
            ("maxPerCore", -1),
            ("min", -1),
            ("min", 2**31),
            ("tcpEstablishedTimeout", "-1s"),
            ("tcpCloseWaitTimeout", "-1s"),
            ("udpTimeout", "-1ms"),
            ("udpStreamTimeout", "-1h"),
            ("udpTimeout", "1"),
            ("udpTimeout", "9999999h"),
            ("udpTimeout", "9" * 5000 + "s"),
        )
    ),
    ({"conntrack": {"maxPerCore": 0, "min": 0, "udpTimeout": "0s", "udpStreamTimeout": "1.5h"}}, ACCEPTED, "conntrack"),
    ({"conntrack": {"maxPerCore": None, "tcpEstablishedTimeout": None}}, ACCEPTED, "conntrack"),
    ({"oomScoreAdj": 5000}, REFUSED, "oomScoreAdj: 5000 is not from -1000 to 1000"),
    ({"oomScoreAdj": -1001}, REFUSED, "oomScoreAdj: -1001 is not"),
    ({"oomScoreAdj": -1000}, ACCEPTED, "oomScoreAdj"),
    ({"mode": "kernelspace"}, REFUSED, 'mode: "kernelspace" is not one of iptables, ipvs, nftables, userspace'),
    ({"mode": ""}, ACCEPTED, "mode:"),
    ({"mode": "ipvs"}, WARNED, "kube-proxy's ipvs mode is deprecated"),
    ({"clientConnection": {"burst": -1}}, REFUSED, "clientConnection.burst: -1 is not from 0 to 2147483647"),
    ({"clientConnection": {"burst": 0, "qps": -1}}, ACCEPTED, "burst"),
    ({"configSyncPeriod": "-1s"}, REFUSED, 'configSyncPeriod: "-1s" is less than 0'),
    ({"configSyncPeriod": "0s"}, ACCEPTED, "configSyncPeriod"),
    ({"iptables": {"syncPeriod": "-1s"}}, REFUSED, 'iptables.syncPeriod: "-1s" is less than 0'),
    ({"iptables": {"minSyncPeriod": "-1s"}}, REFUSED, 'iptables.minSyncPeriod: "-1s" is less than 0'),
    ({"iptables": {"syncPeriod": "1s", "minSyncPeriod": "30s"}}, REFUSED, "iptables.minSyncPeriod: 30 s is more than"),
    ({"iptables": {"syncPeriod": "500ms"}}, REFUSED, "iptables.minSyncPeriod: 1 s is more than"),
    ({"iptables": {"minSyncPeriod": "31s"}}, REFUSED, "iptables.minSyncPeriod: 31 s is more than"),
    ({"iptables": {"syncPeriod": "1s", "minSyncPeriod": "1s"}}, ACCEPTED, "SyncPeriod"),
    ({"iptables": {"syncPeriod": "0s"}}, ACCEPTED, "syncPeriod"),
    ({"iptables": {"syncPeriod": 30}}, REFUSED, "iptables.syncPeriod: expected str, got int"),
    ({"ipvs": {"syncPeriod": "1s", "minSyncPeriod": "30s"}}, ACCEPTED, "SyncPeriod"),
    ({"mode": "ipvs", "ipvs": {"syncPeriod": "1s", "minSyncPeriod": "30s"}}, REFUSED, "ipvs.minSyncPeriod"),
    ({"mode": "ipvs", "ipvs": {"syncPeriod": "-1s"}}, REFUSED, "ipvs.syncPeriod"),
    ({"mode": "ipvs", "iptables": {"syncPeriod": "-1s"}}, ACCEPTED, "syncPeriod"),
    *(
        ({"bindAddress": value}, REFUSED, f"bindAddress: {value!r} is not an IP address")
        for value in ("bogus", "10.0.0.0/8", "10.0.0.1:80", "fe80::1%eth0", "localhost")
    ),
    *(({"bindAddress": value}, ACCEPTED, "bindAddress") for value in ("", "0.0.0.0", "010.0.0.01")),
    *(
        ({field: value}, REFUSED, f"{field}: ")
        for field in ("healthzBindAddress", "metricsBindAddress")
        for value in (
            *("foo:80", "10.0.0.1", ":80", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1:x", "::1:80"),
            *("[10.0.0.1:80", "10.0.0.1:-1", "10.0.0.1:٣", "10.0.0.1:080000"),
        )
    ),
    *(
        ({field: value}, ACCEPTED, f"{field}")
        for field in ("healthzBindAddress", "metricsBindAddress")
        for value in ("", "0.0.0.0:1", "[::]:65535", "010.0.0.1:10256")
    ),
    ({"nodePortAddresses": ["primary", "10.0.0.0/8"]}, REFUSED, "nodePortAddresses[0]: 'primary' cannot be combined"),
    ({"nodePortAddresses": ["10.0.0.0/8", "primary"]}, REFUSED, "nodePortAddresses[1]: 'primary' cannot be combined"),
    ({"nodePortAddresses": ["10.0.0.1"]}, REFUSED, "nodePortAddresses[0]: '10.0.0.1' is not a CIDR"),
    ({"nodePortAddresses": [" 10.0.0.0/8"]}, REFUSED, "nodePortAddresses[0]: "),
    ({"nodePortAddresses": ["010.0.0.0/8"]}, ACCEPTED, "nodePortAddresses[0]"),
    ({"nodePortAddresses": []}, WARNED, "nodePortAddresses is unset: node ports are open on all local addresses"),
    ({"nodePortAddresses": None}, WARNED, "nodePortAddresses is unset"),
    ({"showHiddenMetricsForVersion": "1.36"}, REFUSED, 'showHiddenMetricsForVersion: "1.36" is not 1.35'),
    ({"showHiddenMetricsForVersion": "1.35"}, ACCEPTED, "showHiddenMetricsForVersion"),
    ({"detectLocalMode": "Magic"}, REFUSED, 'detectLocalMode: "Magic" is not one of ClusterCIDR, NodeCIDR'),
    ({"detectLocalMode": "BridgeInterface"}, REFUSED, "detectLocal.bridgeInterface: must not be empty"),
    ({"detectLocalMode": "InterfaceNamePrefix"}, REFUSED, "detectLocal.interfaceNamePrefix: must not be empty"),
    (
        {"detectLocalMode": "BridgeInterface", "detectLocal": {"interfaceNamePrefix": "veth"}},
        REFUSED,
        "detectLocal.bridgeInterface: must not be empty",
    ),
    ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cbr0"}}, ACCEPTED, "bridgeInterface"),
    ({"clusterCIDR": "10.244.0.0/16,10.245.0.0/16"}, REFUSED, "clusterCIDR: "),
    ({"clusterCIDR": "fd00::/56,fd01::/56"}, REFUSED, "has two prefixes of one family"),
    ({"clusterCIDR": f"{DUAL_CIDRS},10.245.0.0/16"}, REFUSED, "clusterCIDR: 3 prefixes"),
    ({"clusterCIDR": "10.244.0.0"}, REFUSED, "clusterCIDR: '10.244.0.0' is not a CIDR"),
    ({"clusterCIDR": "10.244.0.0/16,"}, REFUSED, "clusterCIDR: '' is not a CIDR"),
    ({"clusterCIDR": "10.244.0.0/16, fd00::/56"}, REFUSED, "clusterCIDR: ' fd00::/56' is not a CIDR"),
    ({"clusterCIDR": "010.244.0.0/16"}, ACCEPTED, "clusterCIDR"),
    ({"clusterCIDR": DUAL_CIDRS}, ACCEPTED, "clusterCIDR"),
    (
        {
            "clusterCIDR": "10.244.0.0,x",
            "detectLocalMode": "BridgeInterface",
            "detectLocal": {"bridgeInterface": "cbr0"},
        },
        ACCEPTED,
        "clusterCIDR",
    ),
    ({"logging": {"format": "xml"}}, REFUSED, 'logging.format: the text "xml" is not one of text, json'),
    ({"logging": {"format": "json"}}, ACCEPTED, "logging"),
    ({"logging": {"format": "text", "verbosity": 2**31}}, REFUSED, "logging.verbosity"),
    ({"logging": {"verbosity": -1}}, REFUSED, "logging.verbosity"),
    ({"logging": {"format": "json", "vmodule": [{"filePattern": "x"}]}}, REFUSED, "logging.vmodule"),
    ({"logging": {"vmodule": [{"filePattern": ""}]}}, REFUSED, "logging.vmodule[0]"),
    ({"logging": {"vmodule": [{"filePattern": "a=b"}]}}, REFUSED, "logging.vmodule[0].filePattern"),
    ({"logging": {"vmodule": [{"filePattern": "a*", "verbosity": 4}]}}, ACCEPTED, "logging"),
    ({"logging": {"options": {"json": {"splitStream": True}}}}, REFUSED, "needs the feature gate LoggingAlphaOptions"),
    (
        {"logging": {"options": {"text": {"splitStream": True}}}, "featureGates": {"LoggingAlphaOptions": True}},
        ACCEPTED,
        "logging",
    ),
]

# The same, with the node: its host, its addresses, its podCIDRs.
NODE_ROWS: list[tuple[dict, dict, list[str], list[str], str, str]] = [
    ({"clusterCIDR": "fd00::/56"}, SINGLE, ["192.168.50.10"], [], REFUSED, "IPv4 only, but clusterCIDR holds IPv6"),
    (
        {"clusterCIDR": "fd00::/56"},
        DUAL,
        ["192.168.50.10"],
        [],
        WARNED,
        "clusterCIDR has only fd00::/56: traffic",
    ),
    ({"clusterCIDR": "fd00::/56"}, DUAL, ["fd00:50::10"], [], ACCEPTED, "clusterCIDR has"),
    (
        {"clusterCIDR": "fd00::/56"},
        DUAL,
        [],
        [],
        WARNED,
        "clusterCIDR has only fd00::/56: traffic",
    ),
    ({"clusterCIDR": DUAL_CIDRS}, SINGLE, ["192.168.50.10"], [], ACCEPTED, "clusterCIDR has"),
    (
        {"clusterCIDR": "fd00::/56", "detectLocalMode": "NodeCIDR"},
        *(SINGLE, ["192.168.50.10"], ["10.244.1.0/24"]),
        *(WARNED, "IPv4 only, but clusterCIDR holds IPv6"),
    ),
    (
        {"bindAddress": "fd00:50::10"},
        DUAL,
        ["192.168.50.10"],
        [],
        WARNED,
        "clusterCIDR has only 10.244.0.0/16: traffic",
    ),
    (
        {"detectLocalMode": "NodeCIDR"},
        *(SINGLE, ["192.168.50.10"], ["fd00:10:244:1::/64"]),
        *(REFUSED, "IPv4 only, but the Node's podCIDRs holds IPv6"),
    ),
    (
        {"detectLocalMode": "NodeCIDR"},
        *(DUAL, ["192.168.50.10", "fd00:50::10"], ["fd00:10:244:1::/64"]),
        *(WARNED, "spec.podCIDRs of Node node1 has only fd00:10:244:1::/64"),
    ),
    ({}, SINGLE, ["192.168.50.10"], ["fd00:10:244:1::/64"], WARNED, "but the Node's podCIDRs holds IPv6"),
    (
        {"clusterCIDR": DUAL_CIDRS, "nodePortAddresses": ["192.168.50.0/24"]},
        *(DUAL, ["192.168.50.10", "fd00:50::10"], []),
        *(WARNED, "nodePortAddresses has no IPv6 network: node ports answer on every IPv6 address"),
    ),
    (
        {"nodePortAddresses": ["192.168.50.0/24"]},
        *(DUAL, ["192.168.50.10"], ["10.244.1.0/24", "fd00:10:244:1::/64"]),
        *(WARNED, "nodePortAddresses has no IPv6 network: node ports answer on every IPv6 address"),
    ),
    (
        {"nodePortAddresses": ["192.168.50.0/24"]},
        *(DUAL, ["192.168.50.10"], ["10.244.1.0/24"], ACCEPTED, "node ports answer"),
    ),
    (
        {"nodePortAddresses": ["fd00:50::/64"]},
        *(DUAL, ["192.168.50.10", "fd00:50::10"], []),
        *(WARNED, "nodePortAddresses has no IPv4 network: node ports answer on every IPv4 address"),
    ),
    (
        {"nodePortAddresses": ["192.168.50.0/24", "fd00:50::/64"]},
        *(DUAL, ["192.168.50.10", "fd00:50::10"], [], ACCEPTED, "node ports answer"),
    ),
    *(
        (fields, host, ["192.168.50.10"], [], WARNED if host is SINGLE else ACCEPTED, words)
        for host in (SINGLE, DUAL)
        for fields, words in (
            ({"ipvs": {"excludeCIDRs": ["fd00::/64"]}}, "ipvs.excludeCIDRs holds IPv6 prefixes only"),
            ({"healthzBindAddress": "[fd00::1]:10256"}, "healthzBindAddress is [fd00::1]:10256"),
            ({"metricsBindAddress": "[::1]:10249"}, "metricsBindAddress is [::1]:10249"),
        )
    ),
    ({"healthzBindAddress": "[::]:10256"}, SINGLE, ["192.168.50.10"], [], ACCEPTED, "healthzBindAddress"),
    (
        {"ipvs": {"excludeCIDRs": ["fd00::/64", "10.0.0.0/8"]}},
        *(SINGLE, ["192.168.50.10"], [], ACCEPTED, "excludeCIDRs"),
    ),
]


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Plan for a node with this configuration; return the exit code, the changes and the warnings or the error."""
    monkeypatch.chdir(tmp_path)

    def plan(fields: dict, host: dict, addresses: list[str], pods: list[str], *flags: str) -> tuple[int, list, str]:
        config = {"apiVersion": API_VERSION, "kind": KIND, **BASE, **fields}
        Path("config").write_text(yaml.safe_dump(config, allow_unicode=True))
        Path("host").write_text(yaml.safe_dump({"host": host}))
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node1"},
            "spec": {"podCIDRs": pods} if pods else {},
            "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
        }
        Path("objects").write_text(f"{BLOG}---\n{yaml.safe_dump(node)}")
        words = ("plan", "-f", "objects", "--config", "config", "--host", "host", "--observed", "none", "-o", "json")
        with pytest.raises(SystemExit) as stop:
            main([*words, *flags])
        out, err = capsys.readouterr()
        assert "fault of rulegen" not in err
        if stop.value.code:
            assert out == ""
            (error,) = [json.loads(line) for line in err.splitlines()]
            assert error["kind"] == "Error"
            return stop.value.code, [], f"Error: {error['message']}\nNext: {error['hint']}"
        document = json.loads(out)
        return 0, document["changes"], "\n".join(document["warnings"])

    return plan


def check(code: int, said: str, outcome: str, words: str) -> None:
    assert (code, words in said) == (1 if outcome == REFUSED else 0, outcome != ACCEPTED), said


@pytest.mark.parametrize(("fields", "outcome", "words"), ROWS, ids=lambda value: str(value)[:60])
def test_the_configuration_alone(planned, fields, outcome, words):
    code, _, said = planned(fields, SINGLE, ["192.168.50.10"], [])
    check(code, said, outcome, words)


@pytest.mark.parametrize(
    ("fields", "host", "addresses", "pods", "outcome", "words"), NODE_ROWS, ids=lambda value: str(value)[:40]
)
def test_the_configuration_with_the_node(planned, fields, host, addresses, pods, outcome, words):
    code, _, said = planned(fields, host, addresses, pods)
    check(code, said, outcome, words)


@pytest.mark.parametrize("fields", [row[0] for row in NODE_ROWS if row[4] == WARNED and "ipvs" in row[0]])
def test_a_warning_changes_no_rule(planned, fields):
    assert planned(fields, SINGLE, ["192.168.50.10"], [])[1] == planned({}, SINGLE, ["192.168.50.10"], [])[1]


def test_a_configuration_that_fits_is_warned_of_nothing(planned):
    assert planned({}, SINGLE, ["192.168.50.10"], ["10.244.1.0/24"])[::2] == (0, "")
    fields = {"clusterCIDR": DUAL_CIDRS}
    assert planned(fields, DUAL, ["192.168.50.10", "fd00:50::10"], [])[::2] == (0, "")


@pytest.mark.parametrize(
    ("fields", "flags", "source"),
    [
        ({}, ("--detect-local-mode", "BridgeInterface"), "command line, over config: detectLocal.bridgeInterface"),
        ({}, ("--cluster-cidr", "10.0.0.0/8,10.0.0.0/9"), "command line, over config: clusterCIDR"),
        ({}, ("--bind-address", "bogus"), "--bind-address: "),
        ({"detectLocalMode": "BridgeInterface"}, ("--masquerade-all",), "config: detectLocal.bridgeInterface"),
    ],
)
def test_a_fault_is_that_of_whoever_made_it(planned, fields, flags, source):
    code, _, said = planned(fields, SINGLE, ["192.168.50.10"], [], *flags)
    assert code == 1
    assert f"Error: {source}" in said


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"detectLocal": {"bridgeInterface": "cbr0"}}, ("--detect-local-mode", "BridgeInterface")),
        ({"detectLocalMode": "BridgeInterface"}, ("--pod-bridge-interface", "cbr0")),
        ({"clusterCIDR": "bogus"}, ("--cluster-cidr", "10.244.0.0/16")),
        ({"ipvs": {"excludeCIDRs": ["10.0.0.0/8"]}}, ("--ipvs-exclude-cidrs", "")),
    ],
)
def test_flags_and_file_are_judged_together(planned, fields, flags):
    assert planned(fields, SINGLE, ["192.168.50.10"], [], *flags)[0] == 0


KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null,
  udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""


def test_the_file_that_kubeadm_writes_is_taken_as_it_is(planned):
    code, _, said = planned(yaml.safe_load(KUBEADM), SINGLE, ["192.168.50.10"], ["10.244.1.0/24"])
    assert code == 0
    assert [line.partition(":")[2].split(" is ")[0] for line in said.splitlines()] == [" nodePortAddresses"]


def test_an_empty_list_takes_away_what_the_file_has(planned):
    flags = ("--nodeport-addresses", "")
    assert "nodePortAddresses is unset" in planned({}, SINGLE, ["192.168.50.10"], [], *flags)[2]
