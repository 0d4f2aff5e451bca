"""Memory and swap, from /proc/meminfo and /proc/vmstat."""

from __future__ import annotations

import re
import resource

from .._fast.procfs import Rows
from ..metrics import counter, gauge
from .base import Collector, label

TOTAL = gauge("esnode_memory_total_bytes", "Memory that the kernel can use.")
AVAILABLE = gauge("esnode_memory_available_bytes", "Memory that new work can get without swapping.")
USED = gauge("esnode_memory_used_bytes", "Memory that is not available: total less available.")
SWAP_TOTAL = gauge("esnode_swap_total_bytes", "Swap space.")
SWAP_FREE = gauge("esnode_swap_free_bytes", "Swap space that is not in use.")
SWAP_USED = gauge("esnode_swap_used_bytes", "Swap space in use.")

#: Families that are one line of meminfo, in kB.
LINES = {
    "MemTotal": TOTAL,
    "MemFree": gauge("esnode_memory_free_bytes", "Memory that nothing uses."),
    "MemAvailable": AVAILABLE,
    "Buffers": gauge("esnode_memory_buffers_bytes", "Buffers of block devices."),
    "Cached": gauge("esnode_memory_cached_bytes", "Page cache, shared memory included."),
    "Shmem": gauge("esnode_memory_shared_bytes", "Shared memory and tmpfs."),
    "Slab": gauge("esnode_memory_slab_bytes", "The kernel's slab caches."),
    "Dirty": gauge("esnode_memory_dirty_bytes", "Memory waiting to be written to disk."),
    "Writeback": gauge("esnode_memory_writeback_bytes", "Memory being written to disk."),
    "AnonPages": gauge("esnode_memory_anon_bytes", "Anonymous memory of processes."),
    "Mapped": gauge("esnode_memory_mapped_bytes", "Files mapped into processes."),
    "Committed_AS": gauge("esnode_memory_committed_bytes", "Memory promised to processes."),
    "CommitLimit": gauge("esnode_memory_commit_limit_bytes", "Memory that can be promised."),
    "PageTables": gauge("esnode_memory_page_tables_bytes", "Page tables."),
    "HardwareCorrupted": gauge(
        "esnode_memory_hardware_corrupted_bytes", "Memory taken out of use after an error."
    ),
    "AnonHugePages": gauge(
        "esnode_memory_anon_hugepages_bytes", "Anonymous memory in transparent huge pages."
    ),
}
SWAP_LINES = {"SwapTotal": SWAP_TOTAL, "SwapFree": SWAP_FREE}
#: Families that are one line of meminfo, in pages.
COUNTS = {
    "HugePages_Total": gauge("esnode_memory_hugepages", "Huge pages in the pool."),
    "HugePages_Free": gauge("esnode_memory_hugepages_free", "Huge pages not handed out."),
}
DETAIL = gauge(
    "esnode_memory_detail_bytes", "Lines of meminfo that have no family of their own.", ("key",)
)

PAGE_FAULTS = counter(
    "esnode_page_faults_total", "Page faults; major ones had to wait for a disk.", ("kind",)
)
#: Families of vmstat, with the bytes that one unit is.
VMSTAT = {
    "pgpgin": (counter("esnode_page_in_bytes_total", "Bytes read from disks to pages."), 1024),
    "pgpgout": (counter("esnode_page_out_bytes_total", "Bytes written from pages to disks."), 1024),
    "pswpin": (
        counter("esnode_swap_in_bytes_total", "Bytes swapped in."),
        resource.getpagesize(),
    ),
    "pswpout": (
        counter("esnode_swap_out_bytes_total", "Bytes swapped out."),
        resource.getpagesize(),
    ),
    "oom_kill": (counter("esnode_oom_kills_total", "Processes killed for lack of memory."), 1),
}

_DETAIL_LINE = re.compile(rb"(\S+):\s+\d+ kB$", re.MULTILINE)


class Memory(Collector):
    name = "memory"
    switch = "enable_memory"
    keys = ("memory_detail",)
    metrics = (
        *dict.fromkeys((TOTAL, USED, *LINES.values())),
        SWAP_TOTAL,
        SWAP_USED,
        SWAP_FREE,
        *COUNTS.values(),
        DETAIL,
        *(metric for metric, _ in VMSTAT.values()),
        PAGE_FAULTS,
    )

    def bind(self) -> None:
        add = self.table.add
        self.meminfo = Rows(self.table, self.host.proc("meminfo"))
        slots = {}
        for key, metric in (LINES | SWAP_LINES).items():
            slots[metric.name] = add(metric)
            self.meminfo.bind(key.encode() + b":", (1, slots[metric.name], 1024))
        for key, metric in COUNTS.items():
            self.meminfo.bind(key.encode() + b":", (1, add(metric)))
        self.lacks_detail = self.config.memory_detail
        self.differences = [
            (add(USED), slots[TOTAL.name], slots[AVAILABLE.name]),
            (add(SWAP_USED), slots[SWAP_TOTAL.name], slots[SWAP_FREE.name]),
        ]

        self.vmstat = Rows(self.table, self.host.proc("vmstat"))
        for key, (metric, unit) in VMSTAT.items():
            self.vmstat.bind(key.encode(), (1, add(metric), unit))
        minor, major = add(PAGE_FAULTS, ("minor",)), add(PAGE_FAULTS, ("major",))
        # pgfault counts both kinds.
        self.faults = self.table.hidden(PAGE_FAULTS)
        self.vmstat.bind(b"pgfault", (1, self.faults))
        self.vmstat.bind(b"pgmajfault", (1, major))
        self.differences.append((minor, self.faults, major))

    def bind_detail(self) -> None:
        """Rows for the lines in kB that no family has; a running kernel has always the same."""
        try:
            text = self.meminfo.file.read()
        except OSError:
            return
        self.lacks_detail = False
        for name, key in {label(key): key for key in _DETAIL_LINE.findall(text)}.items():
            if name not in LINES | SWAP_LINES:
                self.meminfo.bind(key + b":", (1, self.table.add(DETAIL, (name,)), 1024))

    def sample(self, tick: bool) -> None:
        if self.lacks_detail:
            self.bind_detail()
        self.read(self.meminfo)
        self.read(self.vmstat)
        get = self.table.get
        for slot, whole, part in self.differences:
            difference = get(whole) - get(part)
            if difference >= 0:
                self.table.set(slot, difference)
