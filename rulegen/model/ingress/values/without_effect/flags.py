"""Flags of all releases of ingress-nginx that have no effect in rulegen, each with the reason.

rulegen accepts and reports them, so that it can be started with the flags of ingress-nginx.
"""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values.without_effect.names import OFF, NameKind, NoEffect, by_name

_ON: Final = ("1", "t", "T", "true", "TRUE", "True")
_STREAM: Final = "nothing listens for TCP and UDP Services; publish them with Services of type LoadBalancer or NodePort"
_PASSTHROUGH: Final = "TLS ends at nginx for all hosts; see the annotation ssl-passthrough"
_WEBHOOK: Final = "there is no webhook; `rulegen plan --ingress -f` checks an Ingress before it is applied"
_METRICS: Final = "requests are not counted by host; --metrics-address has the metrics of rulegen run"
_GEOIP: Final = "countries of clients are not looked up"
_HEALTH: Final = "rulegen run answers /healthz and /livez on --health-address"
_INNER: Final = "nginx here has no such inner port"
_LOG: Final = "rulegen run logs to its standard error; see --log-format and --verbose"
_SYNC: Final = "changes are followed at once; the pause between two reloads depends on how long a reload takes"
_LEASES: Final = "nodes of one --ingress-class agree by Leases, see --lease-namespace"
_GRACE: Final = "nginx finishes its requests for at most worker-shutdown-timeout (a key of the ConfigMap)"
_STATUS: Final = "only rulegen run writes the status of Ingresses"
_LUA: Final = "nginx here has no Lua"
_TEMPLATES: Final = "rulegen has templates of its own"
_KUBECONFIG: Final = "use --kubeconfig"


def _rows(
    kind: NameKind, reason: str, *names: str, fulfilled_by: tuple[str, ...] = (), changes_served: bool = True
) -> list[NoEffect]:
    """Return flags of one reason; an empty value requests the default of a flag, so it is never reported."""
    return [NoEffect(name, kind, reason, ("", *fulfilled_by), changes_served) for name in names]


FLAGS: Final = by_name(
    *_rows(NameKind.MISSING, _STREAM, "tcp-services-configmap", "udp-services-configmap"),
    # Only an Ingress with the annotation ssl-passthrough is served in another way; the annotation is reported.
    *_rows(NameKind.PROTECTION, _PASSTHROUGH, "enable-ssl-passthrough", fulfilled_by=OFF, changes_served=False),
    *_rows(NameKind.DONE, _PASSTHROUGH, "ssl-passthrough-proxy-port"),
    *_rows(NameKind.PROTECTION, _WEBHOOK, "validating-webhook", changes_served=False),
    *_rows(NameKind.DONE, _WEBHOOK, "validating-webhook-certificate", "validating-webhook-key", "disable-full-test"),
    *_rows(
        NameKind.MISSING,
        "certificates are sent as the Secret has them",
        "enable-ssl-chain-completion",
        fulfilled_by=OFF,
    ),
    *_rows(NameKind.MISSING, "endpoints of all zones get requests", "enable-topology-aware-routing", fulfilled_by=OFF),
    *_rows(NameKind.MISSING, _KUBECONFIG, "apiserver-host"),
    *_rows(NameKind.MISSING, _KUBECONFIG, "certificate-authority", changes_served=False),
    *_rows(NameKind.MISSING, _METRICS, "enable-metrics", fulfilled_by=OFF, changes_served=False),
    *_rows(NameKind.DONE, _METRICS, "metrics-per-host", "metrics-per-undefined-host", "report-status-classes"),
    *_rows(
        NameKind.DONE, _METRICS, "exclude-socket-metrics", "monitor-max-batch-size", "time-buckets", "length-buckets"
    ),
    *_rows(NameKind.DONE, _METRICS, "size-buckets", "bucket-factor", "max-buckets"),
    *_rows(
        NameKind.MISSING, _GEOIP, "maxmind-edition-ids", "maxmind-license-key", "maxmind-mirror", changes_served=False
    ),
    *_rows(NameKind.DONE, _GEOIP, "maxmind-retries-count", "maxmind-retries-timeout"),
    *_rows(NameKind.DONE, _HEALTH, "healthz-port", "healthz-host", "health-check-path", "health-check-timeout"),
    *_rows(NameKind.DONE, _INNER, "default-server-port", "status-port", "stream-port", "internal-logger-address"),
    *_rows(NameKind.DONE, "there is no profiler", "profiling", "profiler-port", "profiler-address"),
    *_rows(NameKind.DONE, _SYNC, "sync-period", "sync-rate-limit", "status-update-interval"),
    *_rows(NameKind.DONE, _LEASES, "election-id", "election-ttl"),
    *_rows(NameKind.MISSING, _LEASES, "disable-leader-election", fulfilled_by=OFF, changes_served=False),
    *_rows(NameKind.DONE, _GRACE, "shutdown-grace-period", "post-shutdown-grace-period"),
    *_rows(NameKind.DONE, _LUA, "dynamic-configuration-retries"),
    *_rows(NameKind.DONE, _TEMPLATES, "configuration-template-engine", fulfilled_by=("go-template",)),
    *_rows(NameKind.DONE, "each value is always read by its type", "enable-annotation-validation", fulfilled_by=_ON),
    *_rows(
        NameKind.DONE, "each value is read by its type, so no words are searched for", "deep-inspect", fulfilled_by=_ON
    ),
    *_rows(NameKind.DONE, _STATUS, "publish-service", "publish-status-address", "update-status"),
    *_rows(NameKind.DONE, _STATUS, "update-status-on-shutdown", "report-node-internal-ip-address"),
    *_rows(NameKind.DONE, _LOG, "v", "vmodule", "alsologtostderr", "logtostderr", "stderrthreshold", "add_dir_header"),
    *_rows(NameKind.DONE, _LOG, "log_backtrace_at", "log_dir", "log_file", "log_file_max_size", "one_output"),
    *_rows(NameKind.DONE, _LOG, "skip_headers", "skip_log_headers"),
    # Flags of older releases, which 1.15 does not have.
    *_rows(
        NameKind.DONE,
        "Ingresses use Secrets and ConfigMaps of their own namespace only",
        "force-namespace-isolation",
        fulfilled_by=_ON,
    ),
    *_rows(NameKind.REPLACED, "use --configmap", "nginx-configmap"),
    *_rows(NameKind.REPLACED, "use bind-address, a key of the ConfigMap", "bind-addresses"),
    *_rows(
        NameKind.REPLACED,
        _LUA,
        "enable-dynamic-configuration",
        "enable-dynamic-certificates",
        fulfilled_by=OFF,
        changes_served=False,
    ),
    *_rows(NameKind.DONE, "servers of an upstream are always sorted", "sort-backends", fulfilled_by=_ON),
    *_rows(
        NameKind.REPLACED,
        "addresses of nodes that serve are published",
        "disable-node-list",
        fulfilled_by=OFF,
        changes_served=False,
    ),
    *_rows(NameKind.REPLACED, _HEALTH, "default-health-check-url", changes_served=False),
    *_rows(NameKind.REPLACED, _KUBECONFIG, "running-in-cluster", changes_served=False),
)
"""By name without dashes; those of the last release first."""

OTHER_NAMES: Final = {"disable-sync-events": "no-events"}
"""Flags for which a command has another name."""
