"""The agent as `esnode-core` starts it, but one that writes its history all the time, and seals in
many small steps."""

from __future__ import annotations

import sys

from esnode.__main__ import main
from esnode.tsdb import recorder, seal

recorder.FLUSH = 0.2
seal.FRAME = 20_000

if __name__ == "__main__":
    sys.exit(main())
