"""The values of annotations that ingress-nginx takes: each is taken here, or refused with a message that names it."""

from __future__ import annotations

import pytest

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.values.annotations.reading import read_annotations
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS
from tests.strategies.ingresses import PREFIX

_ABOUT = ObjectKey("Ingress", ObjectName("demo", "web"))
_BOOLEAN = "true false 1 0 t f T F TRUE FALSE True False"
_OBJECT = "name demo/name"
_NETWORKS = "10.0.0.0/8 10.0.0.1 10.0.0.0/8,192.168.0.0/16 fd00::/8 ::1"
_ON_OFF = "on off"
_SIZE = "1000 100k 8K 1m 1M"
_SECONDS = "1 60 3600"
_REDIRECT = (
    "https://a.test http://a.test:8080/x?a=b https://$host$request_uri https://$http_host/x https://a.test$uri"
    " https://a.test/$1 $scheme://a.test$request_uri https://$host/?a=$arg_a"
)

_TAKEN = {
    "use-regex": _BOOLEAN,
    "rewrite-target": "/ /$1 /app/$1/x/$2 $1 /a.b-c_d~e",
    "app-root": "/ /app /a/b.html",
    "permanent-redirect": _REDIRECT,
    "permanent-redirect-code": "300 301 302 303 307 308",
    "temporal-redirect": _REDIRECT,
    "temporal-redirect-code": "300 301 302 303 307 308",
    "relative-redirects": _BOOLEAN,
    "server-alias": "a.test a.test,b.test *.a.test",
    "from-to-www-redirect": _BOOLEAN,
    "default-backend": "web",
    "custom-http-errors": "404 404,503",
    "disable-proxy-intercept-errors": _BOOLEAN,
    "service-upstream": _BOOLEAN,
    "canary": _BOOLEAN,
    "canary-by-header": "X-Canary canary",
    "canary-by-header-value": "always yes a-b.c_d",
    "canary-by-header-pattern": "DE|AT ^v[0-9]+$",
    "canary-by-cookie": "canary a_b.c-d",
    "canary-weight": "0 1 50 100 150",
    "canary-weight-total": "1 100 1000",
    "ssl-redirect": _BOOLEAN,
    "force-ssl-redirect": _BOOLEAN,
    "preserve-trailing-slash": _BOOLEAN,
    "use-port-in-redirects": _BOOLEAN,
    "ssl-ciphers": "ALL:!aNULL:!EXPORT56:RC4+RSA:+HIGH:+MEDIUM:+LOW ECDHE-RSA-AES128-GCM-SHA256",
    "ssl-prefer-server-ciphers": _BOOLEAN,
    "auth-tls-secret": _OBJECT,
    "auth-tls-verify-client": "on off optional optional_no_ca",
    "auth-tls-verify-depth": "0 1 10",
    "auth-tls-match-cn": "CN=a.test CN=(a|b).*",
    "auth-tls-error-page": "https://a.test/error.html /error https://$host/error",
    "auth-tls-pass-certificate-to-upstream": _BOOLEAN,
    "proxy-ssl-secret": _OBJECT,
    "proxy-ssl-ciphers": "HIGH:!aNULL DEFAULT",
    "proxy-ssl-protocols": "TLSv1.2 TLSv1.3 SSLv2 SSLv3 TLSv1 TLSv1.1",
    "proxy-ssl-name": "a.test",
    "proxy-ssl-server-name": _ON_OFF,
    "proxy-ssl-verify": _ON_OFF,
    "proxy-ssl-verify-depth": "0 1 10",
    "auth-type": "basic",
    "auth-secret": _OBJECT,
    "auth-secret-type": "auth-file auth-map",
    "auth-realm": "Restricted a-b.c",
    "auth-url": "http://a.test/x?a=b https://$host/oauth2/auth http://a.b.svc.cluster.local:4180/x https://a.test$request_uri",
    "auth-method": "GET HEAD POST PUT PATCH DELETE OPTIONS",
    "auth-signin": (
        "https://a.test/start /oauth2/start https://$host/oauth2/start?rd=$escaped_request_uri"
        " https://a.test/?rd=https://$http_host$request_uri https://$host/start?rd=$scheme://$host$escaped_request_uri"
    ),
    "auth-signin-redirect-param": "rd back_to",
    "auth-response-headers": "X-User X-User,X-Email x_user",
    "auth-proxy-set-headers": _OBJECT,
    "auth-request-redirect": "https://a.test/x https://$host/back /x",
    "auth-always-set-cookie": _BOOLEAN,
    "auth-cache-key": "$remote_user$http_authorization foo:$cookie_session|$arg_token",
    "auth-keepalive": "0 1 320 -1",
    "auth-keepalive-requests": "1 1000 0",
    "auth-keepalive-timeout": "60 0 -1",
    "auth-cache-duration": "5m 1h,2d 1y 30s 2w",
    "enable-global-auth": _BOOLEAN,
    "whitelist-source-range": _NETWORKS,
    "allowlist-source-range": _NETWORKS,
    "denylist-source-range": _NETWORKS,
    "satisfy": "any all",
    "limit-rps": "0 1 1000",
    "limit-rpm": "0 1 1000",
    "limit-connections": "0 1 1000",
    "limit-burst-multiplier": "1 5 100",
    "mirror-target": "http://a.test https://a.test/$request_uri http://a.test$request_uri",
    "mirror-host": "a.test a.test:8080 $host",
    "mirror-request-body": _ON_OFF,
    "limit-rate": "0 1 1024",
    "limit-rate-after": "0 1 1024",
    "limit-whitelist": _NETWORKS,
    "limit-allowlist": _NETWORKS,
    "enable-cors": _BOOLEAN,
    "cors-allow-origin": "* https://a.test http://a.test:8080 https://*.a.test https://a.test,https://b.test ionic://localhost",
    "cors-allow-methods": "GET GET,POST PROPFIND,REPORT,MKCOL get",
    "cors-allow-headers": "X-One X-One,X_Two *",
    "cors-expose-headers": "X-One X-One,X_Two * *,X-One",
    "cors-allow-credentials": _BOOLEAN,
    "cors-max-age": "0 600 1728000 -1",
    "custom-headers": _OBJECT,
    "upstream-vhost": (
        "a.test a.test:8080 my_backend $host ${service_name}.${namespace}.svc.cluster.local $http_x_host in-$host"
    ),
    "x-forwarded-prefix": "/ /app /$1 /a.b-c/d",
    "connection-proxy-header": "close keep-alive",
    "backend-protocol": "HTTP HTTPS AUTO_HTTP GRPC GRPCS FCGI http https auto_http grpc grpcs fcgi",
    "proxy-connect-timeout": _SECONDS,
    "proxy-send-timeout": _SECONDS,
    "proxy-read-timeout": _SECONDS,
    "proxy-body-size": f"0 {_SIZE} 1g",
    "client-body-buffer-size": _SIZE,
    "proxy-buffering": _ON_OFF,
    "proxy-request-buffering": _ON_OFF,
    "proxy-buffer-size": _SIZE,
    "proxy-buffers-number": "2 4 8",
    "proxy-busy-buffers-size": _SIZE,
    "proxy-max-temp-file-size": f"0 {_SIZE} 1g",
    "proxy-next-upstream": (
        "error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429 non_idempotent off"
    ),
    "proxy-next-upstream-tries": "0 1 3 888888",
    "proxy-next-upstream-timeout": "0 5 60",
    "proxy-http-version": "1.0 1.1",
    "proxy-redirect-from": "off default http://a.test/ /a a.test",
    "proxy-redirect-to": "off default http://a.test/ /a a.test",
    "proxy-cookie-domain": "off",
    "proxy-cookie-path": "off",
    "fastcgi-index": "index.php",
    "fastcgi-params-configmap": _OBJECT,
    "load-balance": "round_robin ewma ip_hash",
    "upstream-hash-by": "$request_uri $host $remote_addr ${request_uri}-x $arg_a $cookie_a $http_x_a",
    "affinity": "cookie",
    "affinity-mode": "balanced persistent",
    "affinity-canary-behavior": "sticky legacy",
    "session-cookie-name": "route INGRESSCOOKIE a.b-c_d~e",
    "session-cookie-path": "/ /app",
    "session-cookie-domain": "a.test .a.test",
    "session-cookie-expires": "0 3600 -1",
    "session-cookie-max-age": "0 3600 -1",
    "session-cookie-samesite": "None Lax Strict none lax strict",
    "session-cookie-change-on-failure": _BOOLEAN,
    "session-cookie-secure": _BOOLEAN,
    "session-cookie-partitioned": _BOOLEAN,
    "session-cookie-conditional-samesite-none": _BOOLEAN,
    "enable-access-log": _BOOLEAN,
    "enable-rewrite-log": _BOOLEAN,
    "health-check-path": "/ /healthz /a/b.html",
    "health-check-interval": "1 2 3600",
    "slow-start": "0 30 3600",
    "max-connections": "1 100 1000000",
    "retry-on": "conn-failure 503 empty-response",
}
"""Of each annotation, values of the set that ingress-nginx takes, separated by blanks; at the end, those of our own."""

_REFUSED = {
    "auth-type": "digest",
    "auth-cache-key": "foo $request_uri $remote_user",
    "auth-method": "CONNECT TRACE",
    "auth-url": "https://a.test/?u=$escaped_request_uri http://$http_x_server/",
    "server-alias": "~^www\\d+\\.a\\.test$",
    "upstream-hash-by": "text $request_body",
    "proxy-body-size": "10b",
    "proxy-buffer-size": "1g",
    "permanent-redirect": "https://a.test/?c=$http_cookie",
    "upstream-vhost": "$request_body",
}
"""Values that ingress-nginx takes and that are refused here, each for a reason in docs/divergences.md."""


def test_the_table_has_all_annotations() -> None:
    assert set(_TAKEN) == set(ANNOTATIONS)


@pytest.mark.parametrize("name", sorted(_TAKEN))
def test_what_ingress_nginx_takes_is_taken(name: str) -> None:
    for text in _TAKEN[name].split(" "):
        read = read_annotations(_ABOUT, {f"{PREFIX}/{name}": text}, PREFIX)
        assert set(read.values) == {ANNOTATIONS[name]}, text
        assert not read.failed, text


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in _REFUSED.items() for text in texts.split()])
def test_or_it_is_refused_by_name(name: str, text: str) -> None:
    read = read_annotations(_ABOUT, {f"{PREFIX}/{name}": text}, PREFIX)
    assert read.failed == {ANNOTATIONS[name]}
    (reason,) = read.reasons
    assert f"/{name}" in reason.path
    assert reason.message
