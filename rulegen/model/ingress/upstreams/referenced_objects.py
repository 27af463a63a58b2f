"""Secrets and ConfigMaps that annotations refer to, and the files with their content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct, field

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.ir import SecretFile
from rulegen.model.ingress.unread import AbsentError, UnreadError
from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.kube.objects.structs import ConfigMap, Secret
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.model.ingress.values.texts import Text

T = TypeVar("T")
MAX_HEADERS: Final = 50


class Referred(Struct):
    """Secrets and ConfigMaps that annotations refer to, and the files with their content.

    Attributes:
        unread: Objects whose existence is unknown, each with the reason.
        files: Files of the configuration with content from Secrets, by path.
    """

    secrets: Mapping[ObjectName, Secret]
    config_maps: Mapping[ObjectName, ConfigMap]
    targets: Targets
    settings: Settings
    unread: Mapping[ObjectKey, str] = field(default_factory=dict)
    files: dict[str, SecretFile] = field(default_factory=dict)

    def own(self, namespace: str, reference: tuple[str, str]) -> ObjectName:
        """Return the name of an object that an annotation refers to.

        Raises:
            ValueError: The object is in another namespace.
        """
        if reference[0] not in ("", namespace):
            raise ValueError(f"{reference[0]}/{reference[1]} is not of this namespace")
        return ObjectName(namespace, reference[1])

    def secret(self, name: ObjectName) -> Secret:
        """Return a Secret.

        Raises:
            UnreadError: It is unknown whether the Secret exists.
            AbsentError: The Secret does not exist.
        """
        secret = self.secrets.get(name)
        if secret is None:
            raise self._missing(ObjectKey("Secret", name))
        return secret

    def config_map(self, name: ObjectName) -> ConfigMap:
        """Return a ConfigMap.

        Raises:
            UnreadError: It is unknown whether the ConfigMap exists.
            AbsentError: The ConfigMap does not exist.
        """
        config_map = self.config_maps.get(name)
        if config_map is None:
            raise self._missing(ObjectKey("ConfigMap", name))
        return config_map

    def _missing(self, key: ObjectKey) -> AbsentError:
        why = self.unread.get(key)
        return UnreadError(f"{key}: {why}") if why else AbsentError(f"{key} does not exist")

    def headers(self, name: ObjectName) -> tuple[tuple[str, str], ...]:
        """Return the response headers in a ConfigMap, sorted by name; a dollar sign in a value is literal.

        Raises:
            UnreadError: It is unknown whether the ConfigMap exists.
            AbsentError: The ConfigMap does not exist.
            ValueError: A key or a value is no header.
        """
        return self._headers(name, readers.header_text)

    def request_headers(self, name: ObjectName) -> tuple[tuple[str, Text], ...]:
        """Return the request headers in a ConfigMap, sorted by name; values may contain variables.

        Raises:
            UnreadError: It is unknown whether the ConfigMap exists.
            AbsentError: The ConfigMap does not exist.
            ValueError: A key or a value is no header.
        """
        return self._headers(name, readers.request_header_text)

    def _headers(self, name: ObjectName, read: Callable[[str], T]) -> tuple[tuple[str, T], ...]:
        config_map = self.config_map(name)
        if len(config_map.data) > MAX_HEADERS:
            raise ValueError(f"ConfigMap {name} contains more than {MAX_HEADERS} headers")
        try:
            return tuple((readers.settable_header(key), read(text)) for key, text in sorted(config_map.data.items()))
        except ValueError as error:
            raise ValueError(f"ConfigMap {name}: {error}") from None

    def keep(self, path: str, content: bytes, *, for_workers: bool = False) -> str:
        """Add a file to the configuration; return its path."""
        self.files[path] = SecretFile(content=content, for_workers=for_workers)
        return path
