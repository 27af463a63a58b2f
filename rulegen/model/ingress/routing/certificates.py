"""The certificate of each host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.upstreams.certificates import Certificate, UnusableSecretError, read_certificate
from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from rulegen.kube.objects.structs import IngressTLS, Secret
    from rulegen.model.ingress.ir import Server
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.upstreams.referenced_objects import Referred

DEFAULT_CERTIFICATE: Final = "secrets/00000000000000000000000000000000.pem"
"""Path of the self-signed default certificate in the configuration."""


class HostTLS(NamedTuple):
    """TLS of a host.

    Attributes:
        certificate: Path of the file with certificate and key; empty for the default certificate.
        is_wanted: Whether an Ingress requests TLS for the host.
        is_unread: Whether its certificate could not be read yet, so that TLS connections are rejected.
        responder_port: Port of its certificate's OCSP responder; 0 for none.
    """

    certificate: str = ""
    is_wanted: bool = False
    is_unread: bool = False
    responder_port: int = 0


_NO_TLS: Final = HostTLS()


def with_wildcard_certificates(servers: Mapping[str, Server]) -> dict[str, Server]:
    """Return the servers by host; a host without TLS gets that of a matching wildcard host."""
    completed = dict(servers)
    for host, server in servers.items():
        wildcard = servers.get(f"*.{host.partition('.')[2]}")
        if wildcard is not None and wildcard.has_tls and not server.has_tls and not host.startswith("*."):
            completed[host] = replace(
                server,
                certificate=wildcard.certificate,
                has_tls=True,
                rejects_tls=wildcard.rejects_tls,
                responder_port=wildcard.responder_port,
            )
    return completed


class Certificates(Struct):
    """The certificates in Secrets. Each is parsed once.

    Attributes:
        now: The time, to report expired certificates; None for no such reports.
        parsed: Certificate or fault of each Secret, with the Secret it was read from; may be shared between objects.
        reasons: Reports about certificates that cannot be used, or that clients will reject.
    """

    referred: Referred
    now: dt.datetime | None = None
    parsed: dict[ObjectName, tuple[Secret, Certificate | str]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    _known: dict[ObjectName, Certificate | str] = field(default_factory=dict)
    _listed: dict[ObjectName, dict[str, list[tuple[int, IngressTLS]]]] = field(default_factory=dict)

    def of_host(self, host: str, owners: Sequence[ResolvedIngress]) -> HostTLS:
        """Return the TLS of a host.

        The oldest Ingress with `tls` decides: with the entry that lists the host, else with the first entry whose
        certificate matches the host.
        """
        for owner in owners:
            entries = owner.ingress.spec.tls
            if not entries:
                continue
            listed = self._entries(owner).get(host, ())
            missing, is_unread = [], False
            for index, entry in listed or enumerate(entries):
                if not entry.secret_name:
                    if listed:
                        break
                    continue
                name = ObjectName(owner.name.namespace, entry.secret_name)
                certificate = self.of_secret(name)
                if isinstance(certificate, Certificate) and (
                    not host or certificate.covers(host, by_common_name=bool(listed))
                ):
                    if self.now is not None and (lapse := certificate.lapse(self.now)):
                        message = f"the certificate in Secret {name} {lapse}"
                        self.reasons.append(owner.reason(Verdict.NOTE, f"spec.tls[{index}]", message))
                    port = 0
                    if self.referred.settings.enable_ocsp and certificate.responder:
                        port, fault = self._responder_port(certificate.responder)
                        if fault:
                            message = (
                                f"the certificate in Secret {name} names an OCSP responder that rulegen does not"
                                f" use: {fault}"
                            )
                            self.reasons.append(owner.reason(Verdict.REFUSED, f"spec.tls[{index}]", message))
                    kept = self.referred.keep(certificate.path, certificate.content)
                    return HostTLS(kept, is_wanted=True, responder_port=port)
                if (why := self.referred.unread.get(ObjectKey("Secret", name))) and name not in self.referred.secrets:
                    is_unread = True
                    message = f"Secret {name}: {why}: {host or 'the default server'} has no TLS until then"
                    missing.append(owner.reason(Verdict.WAITING, f"spec.tls[{index}]", message))
                    continue
                if listed or not entry.hosts:
                    why = (
                        certificate
                        if isinstance(certificate, str)
                        else f"the certificate in Secret {name} is not for this name"
                    )
                    message = f"{why}: {host or 'the default server'} is served with the default certificate"
                    path = f"spec.tls[{index}]"
                    missing.append(owner.reason(Verdict.DEFAULT_CERTIFICATE, path, message))
                if listed:
                    break
            self.reasons += missing
            return HostTLS(is_wanted=True, is_unread=is_unread)
        return _NO_TLS

    def _responder_port(self, url: str) -> tuple[int, str]:
        """Return the port of an OCSP responder, or 0 and the reason if nginx must not connect to it."""
        try:
            responder = readers.url()(url)
        except ValueError as error:
            return 0, str(error)
        port = responder.port or 80
        if responder.scheme != "http":
            return 0, f"{readers.quoted(url)} does not begin with http://"
        if readers.is_private_to_node(responder.host):
            return 0, f"{readers.quoted(responder.host)} is the node itself"
        why = self.referred.targets.refusal_of_host(responder.host, port)
        return (0, why) if why else (port, "")

    def _entries(self, owner: ResolvedIngress) -> Mapping[str, list[tuple[int, IngressTLS]]]:
        """Return the `tls` entries of an Ingress by host."""
        known = self._listed.get(owner.name)
        if known is None:
            known = self._listed[owner.name] = {}
            for index, entry in enumerate(owner.ingress.spec.tls):
                for host in dict.fromkeys(entry.hosts):
                    known.setdefault(host, []).append((index, entry))
        return known

    def default(self, options: IngressOptions) -> str:
        """Return the path of the default certificate."""
        name = options.default_certificate
        if name is not None:
            certificate = self.of_secret(name)
            if isinstance(certificate, Certificate):
                return self.referred.keep(certificate.path, certificate.content)
            message = f"{certificate}: a self-signed one is used"
            self.reasons.append(Reason(None, Verdict.DEFAULT_CERTIFICATE, f"default certificate {name}", message))
        if options.made_up_certificate is not None:
            self.referred.files[DEFAULT_CERTIFICATE] = options.made_up_certificate
        return DEFAULT_CERTIFICATE

    def of_secret(self, name: ObjectName) -> Certificate | str:
        """Return the certificate in a Secret, or its fault."""
        known = self._known.get(name)
        if known is None:
            try:
                known = self._parsed(name, self.referred.secret(name))
            except ValueError as error:
                known = str(error)
            self._known[name] = known
        return known

    def _parsed(self, name: ObjectName, secret: Secret) -> Certificate | str:
        earlier, known = self.parsed.get(name, (None, ""))
        if earlier is secret:
            return known
        try:
            known = read_certificate(secret)
        except UnusableSecretError as error:
            known = f"Secret {name} cannot be used: {error}"
        except ValueError as error:
            known = str(error)
        self.parsed[name] = secret, known
        return known

    def lapses(self) -> tuple[tuple[Certificate, str], ...]:
        """Return the certificates that were used, each with why clients reject it now; empty if they do not."""
        if self.now is None:
            return ()
        looked_at = (known for known in self._known.values() if isinstance(known, Certificate))
        return tuple((certificate, certificate.lapse(self.now)) for certificate in looked_at)
