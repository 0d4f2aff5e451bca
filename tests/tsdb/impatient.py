"""The agent as `esnode-core` starts it, but one that gives a client up that takes nothing."""

from __future__ import annotations

import sys

from esnode.__main__ import main
from esnode.http import export

export.STALLED = 3.0

if __name__ == "__main__":
    sys.exit(main())
