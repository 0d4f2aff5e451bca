"""The document of /status: what each key is called, in the order in which it is written.

Every key is always there, and null is what is not known. Units are in the names; rates and
percentages are of the time between the last two ticks. docs/status.md says where values are from.
"""

from __future__ import annotations

import json
from typing import Literal

import msgspec
from msgspec import Struct

#: Goes up when a key is renamed or removed, or gets another unit or meaning, not for a new key.
VERSION = 1


class Collector(Struct, frozen=True):
    """A collector; ``reason`` says why it is not up."""

    name: str
    enabled: bool
    up: bool | None
    reason: str | None


class Agent(Struct, frozen=True):
    version: str
    commit: str | None
    python: str
    uptime_seconds: float
    cpu_percent: float | None
    resident_bytes: int | None
    collectors: list[Collector]


class Failure(Struct, frozen=True):
    """What a collector could not read, and when it could not the last time."""

    collector: str
    message: str
    unix_ms: int


class Disk(Struct, frozen=True):
    """A mount with the traffic of its disk; of a disk that is not mounted only the traffic."""

    device: str | None
    mount: str | None
    total_bytes: int | None
    used_bytes: int | None
    read_bytes_per_sec: float | None
    written_bytes_per_sec: float | None
    busy_percent: float | None
    read_latency_seconds: float | None
    write_latency_seconds: float | None


class Interface(Struct, frozen=True):
    iface: str
    up: bool | None
    speed_bytes: float | None
    rx_bytes_per_sec: float | None
    tx_bytes_per_sec: float | None
    drops_per_sec: float | None


class Port(Struct, frozen=True):
    """A port of an InfiniBand or RoCE adapter; errors are those of all kinds."""

    device: str
    port: str
    up: bool | None
    state: str | None
    rate_bytes: float | None
    rx_bytes_per_sec: float | None
    tx_bytes_per_sec: float | None
    errors_per_sec: float | None


class PackagePower(Struct, frozen=True):
    package: str | None
    watts: float


class CpuTemperature(Struct, frozen=True):
    """``package`` is the socket: sensors of two sockets may have the same name."""

    sensor: str | None
    celsius: float
    package: str | None


class Tsdb(Struct, frozen=True):
    enabled: bool
    path: str | None
    blocks: int | None
    bytes: int | None
    oldest_unix_ms: int | None
    errors: int | None


class Managed(Struct, frozen=True):
    server: str | None
    cluster_id: str | None
    node_id: str | None
    last_contact_unix_ms: int | None
    state: str | None


class Orchestrator(Struct, frozen=True):
    enabled: bool
    loopback_only: bool
    token_required: bool


class Capabilities(Struct, frozen=True):
    mig: bool | None
    nvlink: bool | None
    gpm: bool | None


class Identity(Struct, frozen=True):
    pci_bus_id: str | None
    driver_version: str | None
    nvml_version: str | None
    cuda_driver_version: str | None
    serial: str | None
    vbios: str | None
    numa_node: int | None
    compute_capability: str | None


class Topology(Struct, frozen=True):
    pci_link_gen: int | None
    pci_link_width: int | None
    pci_link_gen_max: int | None
    pci_link_width_max: int | None


class LastXid(Struct, frozen=True):
    """``meaning`` and ``action`` are null for a code that is not in the catalogue."""

    code: int
    meaning: str | None
    action: str | None
    unix_ms: int | None


class Health(Struct, frozen=True):
    pstate: int | None
    throttle_reasons: list[str] | None
    ecc_mode: bool | None
    ecc_corrected_aggregate: int | None
    ecc_uncorrected_aggregate: int | None
    retired_pages: int | None
    remapped_rows: int | None
    recovery_action: str | None
    last_xid: LastXid | None
    encoder_util_percent: float | None
    decoder_util_percent: float | None
    bar1_total_bytes: int | None
    bar1_used_bytes: int | None


class Link(Struct, frozen=True):
    """An NVLink; what it has carried and its errors are counted with ``gpu_detail`` only."""

    link: int
    up: bool | None
    rx_bytes: int | None
    tx_bytes: int | None
    errors: int | None


class NvLink(Struct, frozen=True):
    links: list[Link] | None


class MigDevice(Struct, frozen=True):
    gi: str
    ci: str
    uuid: str | None
    profile: str | None
    placement: str | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    util_percent: float | None
    sm_count: int | None


class MigTree(Struct, frozen=True):
    """``devices`` is null where instances are not collected."""

    supported: bool | None
    enabled: bool | None
    devices: list[MigDevice] | None


class Process(Struct, frozen=True):
    pid: int
    name: str | None
    memory_bytes: int | None


class Gpu(Struct, frozen=True):
    gpu: str
    uuid: str | None
    name: str | None
    vendor: Literal["Nvidia", "Amd"]
    up: bool | None
    stuck: bool | None
    last_success_unix_ms: int | None
    capabilities: Capabilities
    identity: Identity
    topo: Topology
    util_percent: float | None
    memory_util_percent: float | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    temperature_celsius: float | None
    memory_temperature_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None
    energy_joules: float | None
    fan_percent: float | None
    clock_sm_mhz: float | None
    clock_mem_mhz: float | None
    thermal_throttle: bool | None
    power_throttle: bool | None
    health: Health
    nvlink: NvLink
    mig_tree: MigTree
    #: Null where processes are not listed.
    processes: list[Process] | None


class Status(Struct, frozen=True):
    """All of it. Lists that are null are of what could not be read; an empty one was read."""

    schema_version: int
    agent: Agent
    hostname: str | None
    kernel: str | None
    mode: Literal["standalone", "managed"]
    healthy: bool
    load_avg_1m: float | None
    load_avg_5m: float | None
    load_avg_15m: float | None
    uptime_seconds: float | None
    last_scrape_unix_ms: int | None
    last_errors: list[Failure]
    cpu_cores: int | None
    cpu_util_percent: float | None
    mem_total_bytes: int | None
    mem_used_bytes: int | None
    mem_free_bytes: int | None
    mem_available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    disk_root_total_bytes: int | None
    disk_root_used_bytes: int | None
    disk_read_bytes_per_sec: float | None
    disk_written_bytes_per_sec: float | None
    disks: list[Disk] | None
    primary_nic: str | None
    net_rx_bytes_per_sec: float | None
    net_tx_bytes_per_sec: float | None
    net_drops_per_sec: float | None
    interfaces: list[Interface] | None
    infiniband_rx_bytes_per_sec: float | None
    infiniband_tx_bytes_per_sec: float | None
    infiniband: list[Port] | None
    node_power_watts: float | None
    cpu_package_power_watts: list[PackagePower] | None
    cpu_temperatures: list[CpuTemperature] | None
    app_tokens_per_sec: float | None
    app_tokens_per_watt: float | None
    disk_degraded: bool | None
    network_degraded: bool | None
    swap_degraded: bool | None
    gpu_degraded: bool | None
    degradation_score: float | None
    degradation_reasons: list[str]
    tsdb: Tsdb
    managed: Managed
    orchestrator: Orchestrator
    gpus: list[Gpu] | None


def schema() -> str:
    """docs/reference/status.schema.json."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ESNODE-Core /status",
        "description": "Generated by `make docs` from `esnode/status.py`; do not edit.",
    }
    return json.dumps({**head, **msgspec.json.schema(Status)}, indent=2) + "\n"
