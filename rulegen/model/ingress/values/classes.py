"""Which Ingresses are ours: by IngressClass, or by the annotation that came before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import Ingress, IngressClass
    from rulegen.kube.selector import Selector
    from rulegen.kube.snapshot.world import ClusterSnapshot

CONTROLLER: Final = "rulegen.io/ingress"
CLASS_NAME: Final = "rulegen"
CATCH_ALL: Final = "it has a default backend, and --disable-catch-all is set"
LEGACY_ANNOTATION: Final = "kubernetes.io/ingress.class"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Whose Ingresses are served.

    Attributes:
        controller: spec.controller of the classes that are ours.
        class_name: The class that the old annotation names; also the class by name, where `by_name` says so.
        without_class: Whether an Ingress that names no class at all is ours.
        by_name: Whether a class of this name is ours whatever its controller, or if it does not exist.
        namespaces: Only these; empty for all.
        namespace_selector: Only namespaces with such labels; None for all.
        catch_all: Whether Ingresses with spec.defaultBackend are ours, too.
    """

    controller: str = CONTROLLER
    class_name: str = CLASS_NAME
    without_class: bool = False
    by_name: bool = False
    namespaces: frozenset[str] = frozenset()
    namespace_selector: Selector | None = None
    catch_all: bool = True

    def refusal(self, ingress: Ingress, world: ClusterSnapshot) -> str:
        """Return why an Ingress is not ours; empty if it is. The field goes before the annotation."""
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

    def _by_field(self, named: str, classes: Mapping[str, IngressClass]) -> str:
        if self.by_name and named == self.class_name:
            return ""
        known = classes.get(named)
        if known is None and named == self.class_name:
            return ""  # manifests from git seldom come with their class
        if known is None:
            return f"there is no IngressClass {quoted(named)}"
        if known.spec.controller == self.controller:
            return ""
        return f"class {quoted(named)} is of controller {quoted(known.spec.controller)}, not {quoted(self.controller)}"
