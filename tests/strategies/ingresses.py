"""Ingresses and what they refer to, short to write; texts that mean something to nginx; and a real nginx to ask."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import ssl
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from msgspec.structs import replace

from rulegen.compiler.ingress.nginx import NginxSite, compile_ingress
from rulegen.host.nginx.templates import read_templates
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.languages.configuration import Configuration
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.ir import SecretFile
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.values.settings import Settings
from rulegen.net import Family
from tests.rights import SANDBOX

PREFIX = "nginx.ingress.kubernetes.io"
TEMPLATES = read_templates()
SETTINGS = ObjectName("ingress-nginx", "settings")

NASTY = (
    "",
    " ",
    "'",
    '"',
    "\\",
    "\\\\",
    '\\"',
    "$",
    "$$",
    "$host",
    "${host}",
    "$http_authorization",
    "$nope",
    "a$",
    "{",
    "}",
    ";",
    "#",
    "x;} location /pwn { return 418; } #",
    'x";} location /pwn { return 418; } #',
    "/x; alias /etc/; #",
    "\n",
    "/ok\n",
    "x\r\nSet-Cookie: a=b",
    "\x00",
    "a\x00b",
    "\x7f",
    "\t",
    "é",
    "日本語",
    "\u202etxt",
    "\u2028",
    "\u200b",
    "\ufeff/",
    "\ud800",
    "a" * 250,
    "/" + "a" * 4000,
    "$" * 600,
    '"' * 2000,
    "日" * 1300,
    "a," * 2000,
    "off",
    "on",
    "default",
    "none",
    "true",
    "false",
    "any",
    "all",
    "0",
    "-1",
    "1",
    "99999999999999999999",
    "1e3",
    "\uff11\uff12",
    "unix:/x",
    "unix:/run/x.sock",
    "http://unix:/run/x.sock:/",
    "http://127.0.0.1:10250/",
    "http://[::1]/",
    "http://a.example.com/$http_cookie",
    "http://a.example.com:99999/",
    "https://a.example.com/ok?x=1#y",
    "javascript:alert(1)",
    "/etc/passwd",
    "../../etc/passwd",
    "../",
    "//evil.example.com/",
    "/ok",
    "~^.*$",
    "~",
    "~*x",
    "*",
    "*.",
    "_",
    "localhost",
    "169.254.169.254",
    "0.0.0.0/0",
    "10.0.0.0/33",
    "::/0",
    "hostnames",
    "include",
    "volatile",
    "(a+)+$",
    "(",
    "[",
    "(?<x>a)",
    "CN=(",
    "CN=x)(",
    "error timeout http_502",
    "499",
    "basic",
    "POST",
    "SSLv3",
    "__value_00000__",
    "content_by_lua",
    "x-a " * 900,
    "X" * 100,
    "$http_" + "x" * 120,
    "/$0",
    "/$1",
    "/$9?x=$2",
)
"""Texts that mean something to nginx, to a file system, to a resolver, to a regular expression or to an HTTP header."""

FORBIDDEN = ("alias", "root", "load_module", "ssl_engine", "perl", "js_import", "include", "env", "lua")
"""Directives that no value of an object may ever become (`include` stands in the skeleton, for folders of ours)."""


# -- objects -----------------------------------------------------------------------------------------------------------


def service(name: str, *, namespace: str = "default", **spec: Any) -> k.Service:
    number = 1 + int(hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:4], 16) % 60000
    fields: dict[str, Any] = {
        "cluster_ip": f"10.96.{number // 250}.{1 + number % 250}",
        "ports": (k.ServicePort(name="http", port=80), k.ServicePort(name="other", port=8080)),
        **spec,
    }
    fields.setdefault("cluster_ips", (fields["cluster_ip"],) if fields["cluster_ip"] else ())
    return k.Service(metadata=k.ObjectMeta(name=name, namespace=namespace), spec=k.ServiceSpec(**fields))


def endpoints(
    owner: str,
    addresses: Iterable[str] = ("10.244.1.5", "10.244.2.6"),
    *,
    namespace: str = "default",
    ports: Iterable[tuple[str | None, int]] = (("http", 8080), ("other", 9090)),
    **conditions: bool,
) -> k.EndpointSlice:
    addresses = tuple(addresses)
    is_ipv6 = any(":" in address for address in addresses)
    return k.EndpointSlice(
        metadata=k.ObjectMeta(
            name=f"{owner}-{'v6' if is_ipv6 else 'v4'}",
            namespace=namespace,
            labels={"kubernetes.io/service-name": owner},
        ),
        address_type="IPv6" if is_ipv6 else "IPv4",
        endpoints=tuple(
            k.SliceEndpoint(addresses=(address,), conditions=k.EndpointConditions(**conditions))
            for address in addresses
        ),
        ports=tuple(k.SlicePort(name=name, port=port) for name, port in ports),
    )


def backend(name: str = "web", port: int | str = 80) -> k.IngressBackend:
    service_port = k.ServiceBackendPort(name=port) if isinstance(port, str) else k.ServiceBackendPort(number=port)
    return k.IngressBackend(service=k.IngressServiceBackend(name=name, port=service_port))


def path(text: str = "/", kind: str = "Prefix", to: str = "web", port: int | str = 80) -> k.HTTPIngressPath:
    return k.HTTPIngressPath(path=text, path_type=kind, backend=backend(to, port))


def rule(host: str, *paths: k.HTTPIngressPath) -> k.IngressRule:
    return k.IngressRule(host=host, http=k.HTTPIngressRuleValue(paths=paths or (path(),)))


def ingress(
    name: str = "site",
    *rules: k.IngressRule,
    annotations: Mapping[str, str] | None = None,
    namespace: str = "default",
    created: str | None = "2026-01-01T00:00:00Z",
    tls: Iterable[k.IngressTLS] = (),
    default: k.IngressBackend | None = None,
    class_name: str | None = "rulegen",
    uid: str = "",
) -> k.Ingress:
    """Return an Ingress; its annotations are those of our prefix, where a key names no other."""
    texts = {key if "/" in key else f"{PREFIX}/{key}": text for key, text in (annotations or {}).items()}
    return k.Ingress(
        metadata=k.ObjectMeta(name=name, namespace=namespace, annotations=texts, creation_timestamp=created, uid=uid),
        spec=k.IngressSpec(ingress_class_name=class_name, rules=rules, tls=tuple(tls), default_backend=default),
    )


def site(host: str = "site.test", /, **annotations: str) -> k.Ingress:
    """Return an Ingress for one host; keywords are annotations, `_` for `-`."""
    texts = {key.replace("_", "-"): text for key, text in annotations.items()}
    return ingress(host.partition(".")[0], rule(host), annotations=texts)


def tls(secret_name: str, *hosts: str) -> k.IngressTLS:
    return k.IngressTLS(hosts=hosts, secret_name=secret_name)


def secret(name: str, namespace: str = "default", /, **values: bytes) -> k.Secret:
    """Return a Secret; keywords are its keys, `_` for `.`."""
    data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in values.items()}
    return k.Secret(metadata=k.ObjectMeta(name=name, namespace=namespace), data=data)


def config_map(name: str, data: Mapping[str, str], namespace: str = "default") -> k.ConfigMap:
    return k.ConfigMap(metadata=k.ObjectMeta(name=name, namespace=namespace), data=dict(data))


def settings_map(**data: str) -> k.ConfigMap:
    """Return the ConfigMap with settings; keywords are its keys, `_` for `-`."""
    texts = {key.replace("_", "-"): text for key, text in data.items()}
    return config_map(SETTINGS.name, texts, SETTINGS.namespace)


WEB = (service("web"), endpoints("web"))
API = (service("api"), endpoints("api", ("10.244.3.7",)))


# -- certificates ------------------------------------------------------------------------------------------------------


@functools.cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0x1234567890ABCDEF + number, ec.SECP256R1())


def key_pem(key: Any = None) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (key or ec_key()).private_bytes(*form)


SHA256_WITH_RSA, SHA1_WITH_RSA = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")


@functools.cache
def certificate(
    *names: str,
    key: Any = None,
    signer: Any = None,
    is_sha1: bool = False,
    days: int = 365,
    common_name: str = "",
    issuer: str = "",
    is_ca: bool = False,
    responder: str = "",
) -> bytes:
    """Return a certificate in PEM, always the same for the same arguments."""
    key, signer = key or ec_key(), signer or key or ec_key()
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (common_name or (*names, "none")[0])[:64])])
    by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]) if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(1 + len(names))
        .not_valid_before(now - dt.timedelta(days=2000))
        .not_valid_after(now + dt.timedelta(days=days))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    if is_ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    if responder:
        at = x509.UniformResourceIdentifier(responder)
        access = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, at)])
        builder = builder.add_extension(access, False)
    is_edwards = not hasattr(signer, "curve") and not hasattr(signer, "key_size")
    made = builder.sign(signer, None if is_edwards else hashes.SHA256())
    if not is_sha1:
        return made.public_bytes(serialization.Encoding.PEM)
    # No library signs so any more; nobody looks at the signature of what is only loaded.
    raw = made.public_bytes(serialization.Encoding.DER).replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
    return ssl.DER_cert_to_PEM_cert(raw).encode()


def tls_secret(name: str, *names: str, namespace: str = "default") -> k.Secret:
    return secret(name, namespace, tls_crt=certificate(*names), tls_key=key_pem())


MADE_UP = SecretFile(content=certificate("default.test") + key_pem())
HTPASSWD = b"alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"
NAMED = (
    tls_secret("cert", "site.test", "*.site.test"),
    secret("users", auth=HTPASSWD),
    secret("ca", ca_crt=certificate("ca.test", is_ca=True)),
    secret("upstream", tls_crt=certificate("site.test"), tls_key=key_pem(), ca_crt=certificate("ca.test", is_ca=True)),
    config_map("headers", {"X-Own": "yes"}),
    config_map("parameters", {"SCRIPT_FILENAME": "/srv$fastcgi_script_name"}),
)
"""Objects that annotations name."""


# -- compiling ---------------------------------------------------------------------------------------------------------

OPTIONS = IngressOptions(
    settings=Settings(worker_processes="1"),
    host=HttpHost(user="www-data", http_port=8080, https_port=8443),
    made_up_certificate=MADE_UP,
    resolvers=("192.0.2.53",),
    families=(Family.IPV4, Family.IPV6),
)


def options(**changes: Any) -> IngressOptions:
    return replace(OPTIONS, **changes)


def world(*objects: KubeObject) -> ClusterSnapshot:
    return build_world(objects)


def compiled(
    *objects: KubeObject,
    served: bool = False,
    live: Mapping[str, str] | None = None,
    before: NginxSite | None = None,
    **changes: Any,
) -> NginxSite:
    """Return what objects come to; the settings' ConfigMap counts where it is among them."""
    snapshot = world(*objects)
    if SETTINGS in snapshot.config_maps:
        changes.setdefault("config_map", SETTINGS)
    return compile_ingress(snapshot, options(**changes), TEMPLATES, served=served, live=live, before=before)


def file_of(host: str) -> str:
    return f"hosts/{hashlib.sha256(host.encode()).hexdigest()[:16]}.conf"


def text_of(nginx_site: NginxSite, host: str = "site.test") -> str:
    """Return the file of a host."""
    return nginx_site.configuration.files[file_of(host)]


def reported(nginx_site: NginxSite, name: str = "default/site") -> list[Reason]:
    return [reason for reason in nginx_site.model.reasons if (str(reason.about.name) if reason.about else "") == name]


def verdicts(nginx_site: NginxSite, name: str = "default/site") -> set[Verdict]:
    return {reason.verdict for reason in reported(nginx_site, name)}


# -- a real nginx ------------------------------------------------------------------------------------------------------


def write(configuration: Configuration, folder: Path) -> None:
    for name in ("run", "logs", "hosts", "upstreams", "secrets"):
        (folder / name).mkdir()
    for name, text in configuration.files.items():
        (folder / name).write_bytes(text.encode())
    for name, hidden in configuration.secrets.items():
        (folder / name).write_bytes(hidden.content)


def refusal(configuration: Configuration, folder: Path) -> str:
    """Return what a real nginx has against a configuration; empty for nothing."""
    folder.mkdir(exist_ok=True)
    write(configuration, folder)
    command = (*SANDBOX, "nginx", "-t", "-q", "-p", f"{folder}/", "-c", "nginx.conf")
    tested = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=folder)
    return "" if tested.returncode == 0 and not tested.stderr else tested.stderr or str(tested.returncode)


def encoded(*objects: KubeObject) -> bytes:
    return msgspec.json.encode(objects)
