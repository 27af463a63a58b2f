"""Starts the supervisor of nginx: `python -m rulegen.host.nginx.supervisor DIR NGINX [CODE]`."""

import sys
from pathlib import Path

from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.processes.supervisor import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], NGINX))
