"""The agent for a long time: ten seconds here, ten minutes with `make soak`."""

from __future__ import annotations

import os
import time

from .process import threads
from .running import Agent

SECONDS = 600 if os.environ.get("ESNODE_SOAK") else 10
#: What the allocator may settle at after the warm-up, in bytes.
SLACK = 2 * 1024 * 1024
#: Connections just closed, and a worker that a busy machine made the agent hire for a moment.
FEW = 3


def test_a_long_run_costs_no_more_than_its_start() -> None:
    # Not what tests beside this one mount, and have hang.
    flags = ("--scrape-interval", "0.1", "--scrape-max-age", "0", "--disk-mount-include", "^/$")
    with Agent(*flags) as agent:
        before = 0
        counts = (0, 0)
        last = 0.0
        start = time.monotonic()
        while (passed := time.monotonic() - start) < SECONDS:
            for accept in ("text/plain", "application/openmetrics-text"):
                agent.get(accept=accept, accept_encoding="gzip")
            page = agent.series()
            switches = page["esnode_cpu_context_switches_total"]
            assert switches > last, "a fresh reading each time"
            last = switches
            if passed > SECONDS / 3 and not before:
                before, counts = agent.memory, (threads(agent.process.pid), agent.descriptors)
        assert agent.memory - before < SLACK
        assert threads(agent.process.pid) <= counts[0] + FEW
        assert agent.descriptors <= counts[1] + FEW
        errors = {name: n for name, n in page.items() if name.startswith("esnode_agent_errors")}
        assert not any(errors.values()), errors
        assert "WARN" not in agent.log, agent.log
