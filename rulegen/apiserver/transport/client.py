"""A connection to an API server: configuration read by the official client, and plain requests.

The request layer of the official client creates Python models, which takes twenty times the time and five times the
memory of decoding only what is needed. rulegen therefore uses only its configuration (kubeconfig, contexts, exec
plugins, tokens, certificates, the service account of a Pod) and its connection pool, and reads the bytes itself.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlencode, urlsplit

from rulegen.apiserver import limits
from rulegen.apiserver.budget import Budget
from rulegen.apiserver.limits import MAX_OBJECT, ApiTerms, TooLargeError
from rulegen.apiserver.transport.failures import RENEW, failure_kind, network_words, one_line, refusal, unreachable
from rulegen.apiserver.transport.kubeconfig import bound_plugins
from rulegen.apiserver.transport.kubeconfig import check as check_kubeconfig
from rulegen.apiserver.transport.kubeconfig_contents import ANOTHER, why_absent
from rulegen.apiserver.transport.metering import Meter, WireError, metered, metered_connections, pieces, pools_of
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.transport.tls import MAX_BYTES
from rulegen.errors import HostError
from rulegen.safe_files import checked_name, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5
"""Pause before the second attempt; doubled before each further one."""
LONGEST_PAUSE_S: Final = 10.0
"""Maximum pause, even if the server requests a longer one."""
MAX_STATUS_BODY: Final = 1 << 16
"""Bytes of an error's body that are read: it may be a page of a proxy."""

_TEXTS: Final = {
    "proxy-url": "proxy",
    "tls-server-name": "tls_server_name",
    "certificate-authority": "ssl_ca_cert",
    "client-certificate": "cert_file",
    "client-key": "key_file",
    "username": "username",
    "password": "password",
}
"""Fields of a kubeconfig that the official client does not check, and the attributes that contain them."""
_UNHEARD: Final = logging.NullHandler()
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_DEFAULT_KUBECONFIG: Final = "~/.kube/config"
MAX_KUBECONFIG: Final = 1 << 20
"""Maximum size of one kubeconfig, in bytes."""
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_OF_ACCOUNT: Final = {"token": 64 << 10, "ca.crt": MAX_BYTES}
"""Files of a Pod's account, with the maximum size of each."""


class ApiServer:
    """A connection to one API server. Not thread-safe.

    Attributes:
        url: Its URL, such as `https://10.0.0.1:6443`; also the source of objects in messages.
        is_verified: Whether its certificate is verified.
        budget: How much may still be read.
    """

    def __init__(
        self,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        connections: int | None = None,
        terms: ApiTerms | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Read the configuration; nothing is sent yet.

        Args:
            kubeconfig: Path of a file. Without one: the file that KUBECONFIG names, else ~/.kube/config, else the Pod's
                account.
            context: A context of that file; its current one by default.
            terms: Limits for the kubeconfig and for answers.
            budget: Limits of the command, if it uses several servers; else those of `terms`.
            connections: Number of idle connections to keep, each with TCP keepalive; by default as the client decides.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        from kubernetes import client  # noqa: PLC0415 - takes 0.5 s; only live work needs it

        configuration: Any = client.Configuration()
        if connections is not None:
            configuration.connection_pool_maxsize = connections
            configuration.keep_alive = True
        terms = budget.terms if budget is not None else terms or ApiTerms()
        self._has_certificate = _load(configuration, kubeconfig, context, terms)
        self._configuration = configuration
        self._client = _pooled(client, configuration)
        self.pool.pool_classes_by_scheme = pools_of(*metered_connections())
        self.budget = budget or Budget(terms)
        self.url = str(configuration.host).rstrip("/")
        self.is_verified = bool(configuration.verify_ssl)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cautions(self) -> tuple[str, ...]:
        """Return warnings about this connection, one line each."""
        lines = []
        if not self.is_verified:
            lines.append(f"{self.url}: TLS certificates are not verified, as the kubeconfig requests")
        if self.url.startswith("http://"):
            why = "answers are not authenticated: the kubeconfig uses http://, not https://"
            if self._has_login():
                lines.append(f"{self.url}: credentials go over the network in clear text, and {why}")
            elif self._has_certificate:
                lines.append(f"{self.url}: the client certificate is not used, and {why}")
        return tuple(lines)

    def _has_login(self) -> bool:
        configuration = self._configuration
        return bool(configuration.api_key or configuration.username or configuration.password)

    def close(self) -> None:
        """Close idle connections now, and connections in use as soon as they are idle."""
        pools = self.pool.pools
        for each in [pools.get(key) for key in pools.keys()]:  # noqa: SIM118 - it cannot be iterated over
            if each is not None:
                each.close()
        self.pool.clear()

    @property
    def pool(self) -> Any:
        """The pool of connections, a urllib3 `PoolManager`."""
        return self._client.rest_client.pool_manager

    def get(
        self,
        path: str,
        parameters: Mapping[str, str | int] | None = None,
        *,
        doing: str,
        limit: int = MAX_OBJECT,
        until: float = math.inf,
    ) -> bytearray:
        """Return the body of an answer; temporary failures (429, 5xx, a broken answer) are tried again.

        Args:
            path: Such as `/api/v1/services`.
            parameters: Query parameters.
            doing: Purpose for messages, such as `list services`.
            limit: Maximum size of the answer in bytes.
            until: Deadline, by `time.monotonic`.

        Raises:
            ApiRefusedError: The server answered with an error.
            TooLargeError: The answer has more bytes than it may.
            HostError: It cannot be reached, its answer is malformed, or it takes too long.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        pause = FIRST_PAUSE_S
        for remaining in range(TRIES - 1, -1, -1):
            left = until - time.monotonic()
            if left < limits.ANSWER_S:
                meter = Meter(left, f"{doing}: not finished after {limits.LIST_S:g} s")
            else:
                meter = Meter(limits.ANSWER_S)
            try:
                meter.seconds()
                status, body, wanted_pause = self._ask(f"{self.url}{path}{query}", doing, limit, meter)
            except WireError as error:
                raise unreachable(self.url, error) from error
            except _BrokenAnswerError as error:
                if not remaining:
                    raise HostError(
                        f"{self.url}: {doing}: {error.message}", hint="check proxies and firewalls on the way"
                    ) from error
                time.sleep(pause)
            else:
                if status == 200:
                    return body
                if status not in _TRANSIENT or not remaining:
                    raise refusal(self.url, doing, status, body)
                time.sleep(min(max(pause, wanted_pause), LONGEST_PAUSE_S))
            pause *= 2
        raise AssertionError  # the last turn of the loop returns or raises

    def _ask(self, url: str, doing: str, limit: int, meter: Meter) -> tuple[int, bytearray, float]:
        """Return status, body, and the pause in seconds that the server requests.

        Raises:
            _BrokenAnswerError: The connection broke during the answer.
            HostError: There is no connection, or the answer exceeds a limit.
        """
        from urllib3 import Timeout  # noqa: PLC0415 - comes with the client
        from urllib3.exceptions import HTTPError, InsecureRequestWarning, ProtocolError  # noqa: PLC0415 - the same

        answer: Any = None
        try:
            headers = self.headers()
            with warnings.catch_warnings(), metered(meter):
                warnings.simplefilter("ignore", InsecureRequestWarning)  # reported once, in rulegen's own words
                answer = self.pool.request(
                    "GET",
                    url,
                    headers=headers,
                    retries=False,
                    preload_content=False,
                    timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
                )
            if answer.status != 200:
                limit = MAX_STATUS_BODY
            meter.allow(limit)
            body = bytearray()
            for piece in pieces(answer):
                body += piece
                if len(body) > limit:
                    if answer.status != 200:
                        break  # a page of a proxy: the status is sufficient
                    raise too_large(self.url, doing, limit)
                self.budget.receive(len(piece), self.url)
        except (HTTPError, OSError, ValueError) as error:
            if isinstance(error, ProtocolError) and failure_kind(error) is ApiReason.CONNECTION:
                raise _BrokenAnswerError(f"the connection was closed early: {network_words(error)}") from error
            raise unreachable(self.url, error) from error
        finally:
            if answer is not None:
                if not answer.closed:  # the body continues, but no more of it is read
                    answer.close()
                answer.release_conn()
        return int(answer.status), body, asked_pause(answer.headers.get("Retry-After"))

    def headers(self) -> dict[str, str]:
        """Return the headers of a request with the credentials; an expired token is renewed.

        Raises:
            HostError: A credential plugin failed, a file cannot be read, or the credentials cannot be sent.
        """
        try:
            with _complaints_of_plugins():
                settings = self._configuration.auth_settings()
        except HostError:
            raise
        except Exception as error:  # the client can raise any error here
            raise HostError(f"{self.url}: the credentials cannot be read: {one_line(error)}") from error
        values = {each["key"]: each["value"] for each in settings.values() if each["in"] == "header" and each["value"]}
        login = {key: value.strip(" \t\r\n") for key, value in values.items()}  # editors end files with a line feed
        if not all(value.isascii() and value.isprintable() for value in login.values()):
            # Raised here, because the HTTP library would print the whole value.
            raise HostError(f"{self.url}: the credentials contain characters that HTTP headers cannot have", hint=RENEW)
        return {"Accept": "application/json", "User-Agent": "rulegen", **login}


class _BrokenAnswerError(HostError):
    """An incomplete answer. Another attempt may succeed."""


def _load(configuration: Any, kubeconfig: str | None, context: str | None, terms: ApiTerms) -> bool:
    """Fill in the configuration, and return whether it has a client certificate.

    Raises:
        HostError: There is no usable kubeconfig.
    """
    logging.getLogger().addHandler(_UNHEARD)  # otherwise Python prints warnings of libraries to standard error
    named = kubeconfig or os.environ.get("KUBECONFIG") or ""
    default = _default_kubeconfig()
    if not named and not context and not os.path.exists(default):  # noqa: PTH110 - pathlib raises for a long name
        _load_account(configuration)
        return False
    file = named or str(default)
    names = [kubeconfig] if kubeconfig else [name for name in file.split(os.pathsep) if name]
    if not any(os.path.exists(os.path.expanduser(name)) for name in names):  # noqa: PTH110, PTH111 - as above
        raise HostError(f"kubeconfig {one_line(file)}: {why_absent(names)}", hint=ANOTHER)
    _refuse_unsuitable(file)
    has_certificate = check_kubeconfig(file, context, terms)
    bound_plugins()
    _load_file(configuration, file, context)
    _check_values(configuration, file)
    return has_certificate


def _load_account(configuration: Any) -> None:
    """Fill in the configuration from the account of this Pod."""
    from kubernetes import config  # noqa: PLC0415 - takes 0.5 s; only live work needs it

    loaders: Any = config  # its types are incomplete
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise HostError(
            f"no cluster to read from: neither {_DEFAULT_KUBECONFIG}, nor KUBECONFIG, nor a Pod's service account",
            hint=ANOTHER,
        )
    try:
        for name, most in _OF_ACCOUNT.items():
            with suppress(FileNotFoundError):  # the client reports it
                read_regular(_ACCOUNT / name, most, follow=True)
        loaders.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError) as error:
        raise HostError(f"the service account of this Pod: {one_line(error)}") from error


def _load_file(configuration: Any, file: str, context: str | None) -> None:
    """Fill in the configuration from a kubeconfig."""
    from kubernetes import config  # noqa: PLC0415 - takes 0.5 s; only live work needs it
    from yaml import YAMLError  # noqa: PLC0415 - only for the client's sake

    loaders: Any = config
    try:
        with _complaints_of_plugins():
            loaders.load_kube_config(file, context, client_configuration=configuration, persist_config=False)
    except HostError:
        raise
    except (config.ConfigException, OSError, YAMLError) as error:
        raise HostError(f"kubeconfig {file}: {one_line(error)}", hint="`kubectl config view` shows it") from error
    except Exception as error:  # a document of another shape can raise any error in the client
        raise HostError(
            f"kubeconfig {file}: expected a mapping with clusters, contexts and users",
            hint="give the path of a kubeconfig with --kubeconfig; `kubectl config view` shows one",
        ) from error


def _check_values(configuration: Any, file: str) -> None:
    """Reject values that the official client accepts, and fails with later."""
    if not str(configuration.host).startswith(("https://", "http://")):
        raise HostError(
            f"kubeconfig {file}: server {one_line(configuration.host)!r} is not a URL such as https://10.0.0.1:6443",
            hint="`kubectl config view` shows the server of each cluster",
        )
    for field, attribute in _TEXTS.items():
        value = getattr(configuration, attribute, None)
        if value is not None and not isinstance(value, str):
            raise HostError(
                f"kubeconfig {file}: {field} is {one_line(value)!r}, not a text",
                hint="put it in quotes, or remove it",
            )
    for attribute in ("ssl_ca_cert", "cert_file", "key_file"):
        path = getattr(configuration, attribute, None)
        if not path:
            continue
        try:
            with checked_name(path, MAX_BYTES):
                pass
        except OSError as error:
            raise HostError(f"kubeconfig {file}: {path}: {error.strerror or error}") from None


def _refuse_unsuitable(named: str) -> None:
    """Reject an unsuitable kubeconfig: the official client would wait for a FIFO, and read a file of any size.

    Raises:
        HostError: A file in KUBECONFIG is not a regular file, or too large.
    """
    for each in filter(None, named.split(os.pathsep)):
        path = os.path.expanduser(each)  # noqa: PTH111 - as the client does it, which keeps the path where there is no home
        try:
            read_regular(path, MAX_KUBECONFIG, follow=True)
        except FileNotFoundError:
            continue  # of several files, only existing ones are used
        except OSError as error:
            raise HostError(f"kubeconfig {each}: {error.strerror or error}", hint=ANOTHER) from None
        except ValueError:  # a NUL in the name
            raise HostError(f"kubeconfig {one_line(each)}: is not a file name") from None


def _default_kubeconfig() -> Path:
    """Return the default path of the kubeconfig; for a user without a home, a path that does not exist."""
    default = Path(_DEFAULT_KUBECONFIG)
    try:
        return default.expanduser()
    except RuntimeError:  # no HOME, and the user does not exist on this host, as in a container
        return default


def _pooled(client: Any, configuration: Any) -> Any:
    """Return a client of the official library; certificates are read here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reported below, in rulegen's own words
            if configuration.proxy and not configuration.proxy_headers:
                configuration.proxy_headers = _proxy_login(configuration.proxy)
            return client.ApiClient(configuration)
    except ImportError as error:
        raise HostError(
            f"{configuration.host}: a SOCKS proxy cannot be used",
            hint="name an HTTP proxy, as proxy-url of the kubeconfig or as HTTPS_PROXY",
        ) from error
    except (OSError, ValueError) as error:
        raise HostError(f"{configuration.host}: {one_line(error)}") from error


def _proxy_login(url: str) -> dict[str, str] | None:
    """Return the header for the login in a proxy's URL, which the client does not send; None if there is none."""
    from urllib3 import make_headers  # noqa: PLC0415 - comes with the client

    parts = urlsplit(url)
    if parts.username is None:
        return None
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(make_headers(proxy_basic_auth=login))


@contextmanager
def _complaints_of_plugins() -> Iterator[None]:
    """Turn the failure of a credential plugin, which the official client only logs, into an error.

    Raises:
        HostError: This thread has logged an error in the body.
    """
    said: list[str] = []
    thread = threading.get_ident()

    class PluginErrors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                said.append(record.getMessage())

    handler = PluginErrors(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
    if said:
        raise HostError(
            f"credentials of the kubeconfig: {one_line(said[0])}",
            hint="run the command from users[].user.exec of the kubeconfig by hand",
        )


def too_large(url: str, doing: str, limit: int) -> TooLargeError:
    """Return the error for an answer that is larger than allowed."""
    hint = "check that this is the address of an API server" if limit == MAX_OBJECT else limits.LIMIT_HINT
    return TooLargeError(f"{url}: {doing}: an answer of more than {limit} bytes", hint=hint)


def asked_pause(header: str | None) -> float:
    """Return the seconds of a Retry-After header (RFC 9110); API servers never send a date there."""
    return float(header) if header and header.isascii() and header.isdigit() else 0.0
