"""Selection of the Ingresses to serve, by IngressClass or by the older annotation, and the defaults of the options.

Each command loads these defaults for its help text, so this module imports no annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import Ingress, IngressClass
    from rulegen.kube.selector import Selector
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.kube.validation.unusable_ingress import UnusableIngress

CONTROLLER: Final = "rulegen.io/ingress"
CLASS_NAME: Final = "rulegen"
DEFAULT_PREFIX: Final = "nginx.ingress.kubernetes.io"
MOST_HOSTS: Final = 5_000
"""Maximum number of hosts of one namespace."""
CATCH_ALL: Final = "it has a default backend, and --disable-catch-all is set"
LEGACY_ANNOTATION: Final = "kubernetes.io/ingress.class"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that select the Ingresses to serve.

    Attributes:
        controller: spec.controller of the IngressClasses whose Ingresses are served.
        class_name: Value of the older annotation; with `by_name`, also the name of an IngressClass.
        without_class: Whether Ingresses without a class are served.
        by_name: Whether an IngressClass named `class_name` matches even with another controller, or if it does not
            exist.
        namespaces: Namespaces to serve; empty for all.
        namespace_selector: Label selector of the namespaces to serve; None for all.
        catch_all: Whether Ingresses with spec.defaultBackend are served.
    """

    controller: str = CONTROLLER
    class_name: str = CLASS_NAME
    without_class: bool = False
    by_name: bool = False
    namespaces: frozenset[str] = frozenset()
    namespace_selector: Selector | None = None
    catch_all: bool = True

    def refusal(self, ingress: Ingress, world: ClusterSnapshot) -> str:
        """Return why an Ingress is not served, else an empty text; the field has priority over the annotation."""
        namespace, classes = ingress.metadata.namespace, world.ingress_classes
        if self.namespaces and namespace not in self.namespaces:
            return f"namespace {namespace} is not watched"
        selector = self.namespace_selector
        if selector is not None and namespace not in world.namespaces:
            return f"the labels of namespace {namespace} are unknown, so {quoted(selector.text)} cannot be checked"
        if selector is not None and not selector.selects(world.namespaces[namespace]):
            return f"namespace {namespace} is not selected by {quoted(selector.text)}"
        if not self.catch_all and ingress.spec.default_backend is not None:
            return CATCH_ALL
        named = ingress.spec.ingress_class_name
        if named:
            return self._by_field(named, classes)
        class_name = ingress.metadata.annotations.get(LEGACY_ANNOTATION)
        if class_name is None:
            return "" if self.without_class else "names no class (spec.ingressClassName)"
        if class_name == self.class_name:
            return ""
        return f"annotation {LEGACY_ANNOTATION} names class {quoted(class_name)}, not {quoted(self.class_name)}"

    def refuses(self, unusable: UnusableIngress, world: ClusterSnapshot) -> str:
        """Return why an invalid Ingress is not ours; it may be ours if its class cannot be read."""
        ingress = unusable.ingress
        if not unusable.has_class:
            annotations = {**ingress.metadata.annotations, LEGACY_ANNOTATION: self.class_name}
            spec = structs.replace(ingress.spec, ingress_class_name=None)
            ingress = structs.replace(
                ingress, metadata=structs.replace(ingress.metadata, annotations=annotations), spec=spec
            )
        return self.refusal(ingress, world)

    def _by_field(self, named: str, classes: Mapping[str, IngressClass]) -> str:
        if self.by_name and named == self.class_name:
            return ""
        known = classes.get(named)
        if known is None and named == self.class_name:
            return ""  # manifests in git usually do not contain their IngressClass
        if known is None:
            return f"there is no IngressClass {quoted(named)}"
        if known.spec.controller == self.controller:
            return ""
        return f"class {quoted(named)} is of controller {quoted(known.spec.controller)}, not {quoted(self.controller)}"
