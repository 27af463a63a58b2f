"""How xdist spreads tests over its workers with `--dist loadgroup`: file by file, and the groups of `xdist_group`.

What a file's tests share, such as parsed manifests and fixtures of its module, is then made by one worker only. xdist
itself gives out each test alone, and counts all tests that a worker has run each time one of them ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


class FileScheduling(LoadGroupScheduling):
    """Gives out whole files and groups, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return scope.partition("::")[0]

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Forget a file as soon as all of it has run: what is left to do is counted after each test."""
        nodeid = self.registered_collections[node][item_index]
        scope = self._split_scope(nodeid)
        unit = self.assigned_work[node][scope]
        unit[nodeid] = True
        if all(unit.values()):
            del self.assigned_work[node][scope]
        self._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        places = self._places()
        scope, unit = self.workqueue.popitem(last=False)
        self.assigned_work.setdefault(node, {})[scope] = unit
        node.send_runtest_some([places[nodeid] for nodeid, completed in unit.items() if not completed])

    def _places(self) -> dict[str, int]:
        """Return each test's number, which is the same for all workers."""
        if not hasattr(self, "_numbers"):
            self._numbers = {nodeid: number for number, nodeid in enumerate(self.collection)}
        return self._numbers
