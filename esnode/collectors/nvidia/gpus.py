"""NVIDIA GPUs and their MIG instances, through NVML."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ..._fast.table import OWNER
from ...config import Config
from ...host import Host
from ...metrics import Metric, counter, gauge
from ..base import Collector, Refused, Unavailable
from . import card, driver, events, readings, visible
from .card import Card, Told
from .events import Events
from .journal import Event
from .pci import PciDevices
from .readings import Rows

log = logging.getLogger(__name__)

#: Seconds between two attempts to find and initialise the library, and two looks at the PCI bus.
RETRY = 10.0
LOOK = 15.0
#: The longest that a reading may take, in seconds, and how long one GPU may hold up the next.
TIMEOUT = 2.0
PATIENCE = 0.02
#: Readings of a tick in which GPUs or instances come or go, until all that is there is known.
ROUNDS = 4
#: Of nvmlReturn_t: the library is to be initialised anew; only a new process can do that.
GONE = (1, 9)  # UNINITIALIZED, DRIVER_NOT_LOADED
MISMATCH = 18  # LIB_RM_VERSION_MISMATCH

GPUS = gauge("esnode_gpus", "GPUs that the driver has.")
EXPECTED = gauge("esnode_gpus_expected", "GPUs that the node should have.")
PCI = gauge("esnode_gpu_pci_devices", "NVIDIA GPUs on the PCI bus.")
DRIVER_UP = gauge("esnode_gpu_driver_up", "Whether the NVIDIA driver answers.")
RELEASED = gauge("esnode_gpu_driver_released", "Whether the driver was let go of, as asked for.")
CALLS = counter("esnode_agent_nvml_calls_total", "Calls of NVML by function.", ("call",))
SECONDS = counter("esnode_agent_nvml_call_seconds_total", "Time that they took.", ("call",))


def families(module: ModuleType) -> Iterator[Metric]:
    """Every family that a module declares, in the order of its declarations."""
    for value in vars(module).values():
        if isinstance(value, Metric):
            yield value
        elif isinstance(value, (tuple, dict)):
            values = value.values() if isinstance(value, dict) else value
            yield from (each for each in values if isinstance(each, Metric))


class Gpus(Collector):
    """Reads every GPU side by side, see _fast/nvml.pyx."""

    name = "gpu"
    switch = "enable_gpu"
    keys = (
        *("gpu_visible_devices", "mig_config_devices", "expected_gpus", "k8s_mode"),
        *("gpu_detail", "gpu_process_metrics", "enable_gpu_mig", "enable_gpu_events"),
        *("peak_window_seconds", "scrape_interval_seconds"),
    )
    lane = "gpu"
    metrics = (
        *dict.fromkeys((*families(card), *families(readings), *families(events))),
        *(GPUS, EXPECTED, PCI, DRIVER_UP, RELEASED, CALLS, SECONDS),
    )

    #: Asks for a new process, after the driver was replaced by another version.
    restart: Callable[[str], None] | None = None
    #: Is told each event of a GPU, with the number of its GPU where that is known, within some
    #: milliseconds and on any thread.
    heard: Callable[[Event, int | None], None] | None = None

    def __init__(self, host: Host, config: Config) -> None:
        super().__init__(host, config)
        self.driver: Any = None
        self.events: Events | None = None
        #: The number of each GPU in labels, by UUID.
        self.numbers: dict[str, int] = {}
        #: Until when the driver is let go of, in monotonic seconds.
        self.released_until = 0.0
        #: What one before this has called.
        self.called: dict[str, tuple[int, float]] = {}

    def succeed(self, before: Collector) -> None:
        assert isinstance(before, Gpus)
        self.numbers = before.numbers
        self.released_until = before.released_until
        self.called = before.called if before.driver is None else before.driver.calls()
        self.events, before.events = before.events, None
        if self.events is not None:
            self.events.journal.heard = self.hear

    def bind(self) -> None:
        config = self.config
        self.nvml: Any = None
        #: Why the driver is not up.
        self.reason = ""
        #: When to try again, and to look at the bus, in monotonic seconds.
        self.due = self.look_due = 0.0
        self.reading = False
        self.cards: dict[Any, Card] = {}  # by nvml.Gpu
        self.visible = visible.Visible(config.gpu_visible_devices)
        self.mig_visible = visible.Visible(config.mig_config_devices)
        self.warned: set[str] = set()
        self.bus = PciDevices(self.host)
        self.on_bus: int | None = None
        self.slots: dict[tuple[Metric, tuple[str, ...]], int] = {}
        if self.events is not None:
            self.events.move(self.table, self.report)
        self.mismatch: str | None = None
        if config.expected_gpus is not None:
            self.table.set(self.table.add(EXPECTED, (), OWNER), config.expected_gpus)

    def put(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a row that is no GPU's; it is added when it is first needed."""
        key = (metric, labels)
        if key not in self.slots:
            self.slots[key] = self.table.add(*key)
        self.table.set(self.slots[key], value)

    def code(self, number: int) -> str:
        """An error of NVML by its name."""
        return str(self.nvml.CODES.get(number, number))

    # ------------------------------------------------------------------------------ the driver

    def release(self) -> None:
        """Lets go of the driver for a while; any thread may ask."""
        log.info("lets go of the driver for %g s", self.config.gpu_release_seconds)
        self.released_until = time.monotonic() + self.config.gpu_release_seconds

    def resume(self) -> None:
        """Takes the driver again; any thread may ask."""
        log.info("takes the driver again")
        self.released_until = self.due = 0.0

    @property
    def released(self) -> bool:
        return time.monotonic() < self.released_until

    @property
    def is_open(self) -> bool:
        return self.driver is not None and self.driver.open

    def open(self, now: float) -> bool:
        """Finds and initialises the library, where that is due. Whether it is."""
        if self.is_open:
            return True
        if now < self.due and not (self.driver is not None and self.driver.opening):
            return False
        self.due = now + RETRY - self.config.scrape_interval_seconds / 2
        if self.driver is None:
            try:
                self.nvml = driver.load(self.config.nvml_library)
            except Unavailable as error:
                self.reason = str(error)
                return False
            self.build()
        if self.driver.attach():
            return True
        self.reason = "the driver has not answered yet"
        if self.driver.code:
            self.reason = f"the driver does not come up: {self.code(self.driver.code)}"
        if self.driver.code == MISMATCH:
            self.upgraded()
        return False

    def build(self) -> None:
        """Makes the plans and the driver."""
        config = self.config
        queries = readings.gpu_queries(config.gpu_detail, config.gpu_process_metrics)
        self.gpu_rows = Rows(self.nvml, queries)
        self.mig_rows = Rows(self.nvml, readings.mig_queries())
        self.driver = self.nvml.Driver(
            self.gpu_rows.plan,
            self.mig_rows.plan,
            min(config.scrape_interval_seconds / 2, TIMEOUT),
            PATIENCE,
            config.peak_window_seconds,
            config.enable_gpu_events,
            config.enable_gpu_mig or self.visible.by_mig,
        )
        self.driver.resume(self.called)

    def upgraded(self) -> None:
        """The driver is of another version than the library that this process has mapped: only a
        new process gets the new one. It is asked for once for each version of the driver."""
        version = driver.kernel_version(self.host) or "unknown"
        self.reason = f"the driver was replaced under this process by version {version}"
        if self.mismatch != version:
            self.mismatch = version
            if self.restart:
                self.restart(version)

    def close(self) -> None:
        """Drops what the driver has told, and closes the library, unless a call is under way."""
        for gpu in list(self.cards):
            self.remove(gpu)
        if self.driver is not None and not self.driver.detach():
            self.report("the driver is still held: a call to it has not returned")

    # ------------------------------------------------------------------------------- a reading

    def start(self, tick: bool) -> None:
        now = time.monotonic()
        if tick and now >= self.look_due:
            self.look_due = now + LOOK - self.config.scrape_interval_seconds / 2
            found = self.bus.look()
            self.on_bus = None if found is None else len(found)
        self.reading = False
        if self.released:
            self.close()
            self.due = 0.0  # taken as soon as the time is over
        elif tick or self.is_open or not self.due:
            self.reading = self.open(now)
            if self.reading:
                self.driver.start(tick)

    def sample(self, tick: bool) -> None:
        is_up = self.is_open
        if self.reading:
            code = self.collect(tick)
            if code in GONE or code == MISMATCH:
                is_up = False
                self.reason = f"the driver has gone: {self.code(code)}"
                self.close()
                self.due = 0.0
                if code == MISMATCH:
                    self.upgraded()
        self.read_events()
        self.put(DRIVER_UP, is_up)
        if is_up:
            self.put(GPUS, self.driver.count)
        if self.driver is not None:
            self.put(RELEASED, self.released and not self.is_open)
            self.store_calls()
        if self.on_bus is not None and (self.on_bus or self.driver is not None):
            self.put(PCI, self.on_bus)
        if not is_up and not self.released:
            # Who names a library wants to know that it is none.
            raise (Refused if self.config.nvml_library else Unavailable)(self.reason)

    def collect(self, tick: bool) -> int:
        """Waits for the GPUs and stores what they tell; the error of the library as a whole."""
        code = 0
        for left in reversed(range(ROUNDS)):
            code = self.driver.wait()
            if code or not self.follow_gpus() or not left:
                break
            self.driver.start(tick, again=True)
        if code in GONE or code == MISMATCH:
            return code  # each GPU would say the same
        for each in self.cards.values():
            each.store(self.report, self.code, self.host)
        self.warn()
        return code

    def store_calls(self) -> None:
        """The rows of the functions that were called; those that are new are added."""
        fresh = self.driver.store(self.table)
        for name in fresh:
            slots = (self.table.add(metric, (name,)) for metric in (CALLS, SECONDS))
            self.driver.bind(name, *slots)
        if fresh:
            self.driver.store(self.table)

    def read_events(self) -> None:
        """Counts what has happened to the GPUs, once there has been one."""
        if self.events is None:
            if not self.on_bus and not self.is_open:
                return
            self.events = Events(self.table, self.host, self.report, self.hear)
        self.events.read(self.driver, self.cards.values())

    def hear(self, event: Event) -> None:
        if self.heard is not None:
            self.heard(event, self.numbers.get(event.uuid or ""))

    def stop(self) -> None:
        if self.events is not None:
            self.events.close(timeout=1.0)

    def follow_gpus(self) -> bool:
        """Follows the GPUs and instances that come and go. Whether some are still to be read."""
        gpus = self.driver.gpus
        for gpu in gpus:
            if gpu.done and gpu.uuid:
                self.decide(gpu)
        for gpu, each in list(self.cards.items()):
            if gpu not in gpus or gpu.uuid != each.uuid or not self.shows(gpu):
                self.remove(gpu)
        shown = {each.uuid for each in self.cards.values()} - {None}
        for gpu in gpus:
            if gpu not in self.cards and self.shows(gpu) and gpu.uuid not in shown:
                number = self.number_of(gpu.uuid, gpu.index)
                self.cards[gpu] = Card(
                    self.table, gpu, number, self.gpu_rows, self.mig_rows, self.config
                )
        return bool(self.driver.unread)

    def shows(self, gpu: Any) -> bool:
        """Whether a GPU is shown. Of one that has not told its UUID only the index is known."""
        if gpu.uuid:
            return bool(gpu.wanted)
        return self.visible.gpu(visible.Gpu(gpu.index, ""))

    def decide(self, gpu: Any) -> None:
        """Says what of a GPU is to be read."""
        told = list(map(Told._make, gpu.instances()))
        if gpu.decided and all(each.decided for each in told):
            return
        order = sorted(t.place for t in told)
        migs = tuple(visible.Mig(t.uuid, order.index(t.place), t.gi, t.ci) for t in told)
        known = visible.Gpu(gpu.index, gpu.uuid, migs)
        wanted = self.visible.gpu(known)
        self.mig_visible.gpu(known)
        gpu.want(wanted)
        for place, mig in enumerate(migs):
            is_shown = self.config.enable_gpu_mig and wanted
            is_shown = (
                is_shown and self.visible.mig(known, mig) and self.mig_visible.mig(known, mig)
            )
            gpu.want(is_shown, place)

    def number_of(self, uuid: str | None, index: int) -> int:
        """The number that stands for a GPU in labels: its first index, or the next one that no
        other GPU that is there has."""
        taken = {each.number for each in self.cards.values()}
        taken |= {
            self.numbers[gpu.uuid]
            for gpu in self.driver.gpus
            if gpu.uuid in self.numbers and gpu.uuid != uuid
        }
        number = index if uuid is None else self.numbers.get(uuid, index)
        while number in taken:
            number += 1
        if uuid is not None:
            self.numbers[uuid] = number
        return number

    def remove(self, gpu: Any) -> None:
        self.cards.pop(gpu).remove()

    def warn(self) -> None:
        """Says once which entries of the lists of devices name nothing that is there."""
        lists = {"gpu_visible_devices": self.visible, "mig_config_devices": self.mig_visible}
        for key, entries in lists.items():
            for entry in entries.unmatched():
                message = f"{key}: {entry}: there is no such device"
                if message not in self.warned:
                    self.warned.add(message)
                    log.warning("%s", message)
