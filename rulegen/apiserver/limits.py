"""What an API server's answers may cost, and what a kubeconfig may have us do.

An answer is whatever comes over the network: the server may be another one, or a proxy between us and it may write
what it likes. So all of it is bounded, in bytes, in memory and in time, each answer alone and all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rulegen.errors import HostError

DEFAULT_MEBIBYTES: Final = 256
"""Enough for 20,000 Services with an EndpointSlice of five endpoints each, measured with what a real server adds."""
MOST_MEBIBYTES: Final = 16_384
LIMIT_HINT: Final = "if the cluster really is that large, raise --api-limit"

HEAD_BYTES: Final = 64 << 10
"""Bytes of an answer before its body: status line, headers, interim answers (1xx). A server's are about 500 bytes."""
ANSWER_S: Final = 60.0
"""Seconds for one answer, from the request to its last byte."""
LIST_S: Final = 300.0
"""Seconds for a list, all pages and tries of it: about as long as a server keeps the state that pages come from."""
MAX_PAGES: Final = 20_000
MAX_TOKEN: Final = 32 << 10
"""Characters of what asks for the next page, which goes into a URL. A server's are about 300."""
MAX_OBJECT: Final = 16 << 20
"""Bytes of one object, or of one event of a watch. A server takes objects of up to 3 MiB; their JSON may be longer."""


@dataclass(frozen=True, slots=True)
class ApiTerms:
    """What an API server and a kubeconfig may do.

    Attributes:
        mebibytes: MiB of all lists of one command, and of the memory that their objects take.
        exec_plugins: Whether a kubeconfig may have a program run that provides its credentials.
    """

    mebibytes: int = DEFAULT_MEBIBYTES
    exec_plugins: bool = True

    @property
    def most(self) -> int:
        """Bytes of all lists together, and of memory for objects."""
        return self.mebibytes << 20

    @property
    def page(self) -> int:
        """Bytes of one page of a list; all answers that `run` is reading at the same time may have twice as many."""
        return self.mebibytes << 17


class TooLargeError(HostError):
    """An answer is larger than may be; fewer objects at a time may fit."""
