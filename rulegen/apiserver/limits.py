"""Limits for answers of an API server, and for what a kubeconfig may start.

An answer can have any content: the server may be a wrong one, or a proxy on the way may change it. Every answer is
therefore limited in bytes, memory and time, and so is the total.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rulegen.errors import HostError

DEFAULT_MEBIBYTES: Final = 256
"""Enough for 20,000 Services with an EndpointSlice of five endpoints each, with the metadata of a real server."""
MOST_MEBIBYTES: Final = 16_384
LIMIT_HINT: Final = "if the cluster really is that large, raise --api-limit"

HEAD_BYTES: Final = 64 << 10
"""Bytes of an answer before its body: status line, headers, interim answers (1xx). Usually about 500 bytes."""
ANSWER_S: Final = 60.0
"""Seconds for one answer, from the request to its last byte."""
LIST_S: Final = 300.0
"""Seconds for a list with all pages and attempts: about as long as continue tokens are valid."""
MAX_PAGES: Final = 20_000
MAX_TOKEN: Final = 32 << 10
"""Maximum length of a continue token, which becomes part of a URL. Usually about 300."""
MAX_OBJECT: Final = 16 << 20
"""Bytes of one object or one watch event. A server accepts objects of up to 3 MiB; their JSON may be longer."""


class ApiTerms(msgspec.Struct, frozen=True):
    """Limits for an API server and a kubeconfig.

    Attributes:
        mebibytes: MiB for all lists of one command, and for the memory of their objects.
        exec_plugins: Whether a kubeconfig may run a program to get credentials.
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
    """An answer is larger than allowed; fewer objects per page may fit."""
