"""The tree of a made-up GPU server: 2 sockets of 64 cores, 8 NUMA nodes, 10 NVMe disks, 16
interfaces, 12 InfiniBand and RoCE ports, 178 temperatures.

python -m tests.bighost DIRECTORY writes it. Files that are there once are below fixtures/bighost;
what a machine has many of is made here, with sysfs's links. A number is made from the names of what
it counts, so that it is always the same, and another one in every file and column.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).parent / "fixtures" / "bighost"

CPUS, THREADS, PACKAGES, NODES = 256, 2, 2, 8
FIRST_THREADS = CPUS // THREADS  # the second threads come after all the first
CORES = FIRST_THREADS // PACKAGES
UPTIME = 3_542_417  # seconds, as in proc/uptime


class Link(str):
    """What a symbolic link leads to, as a path below the root."""


#: A path below the root, and its text, what it leads to, or None for a directory.
Entry = tuple[str, str | Link | None]
Span = tuple[int, int]


def number(span: Span, *names: object) -> int:
    """A number from the first to less than the second of a span that depends on the names."""
    digest = blake2b(repr(names).encode(), digest_size=8).digest()
    return span[0] + int.from_bytes(digest, "big") % (span[1] - span[0])


def row(*fields: object) -> str:
    return " ".join(map(str, fields)) + "\n"


def attributes(directory: str, text: str) -> Iterator[Entry]:
    """Files of one value each, from ``name value; name value``."""
    for pair in filter(None, text.split(";")):
        name, _, value = pair.strip().partition(" ")
        yield f"{directory}/{name}", f"{value}\n"


def device(kind: str, path: str, text: str, parent: str = "") -> Iterator[Entry]:
    """A device of a class or on a bus, as in ``class/net`` or ``bus/pci``, and the links to it."""
    yield from attributes(path, text)
    yield f"{path}/subsystem", Link(f"sys/{kind}")
    members = f"sys/{kind}/devices" if kind.startswith("bus/") else f"sys/{kind}"
    yield f"{members}/{path.rpartition('/')[2]}", Link(path)
    if parent:
        yield f"{path}/device", Link(parent)


def once() -> Iterator[Entry]:
    """What is there as a file, and the links between such files."""
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(STATIC)), path.read_text()
    yield "proc/self", Link("proc/1")
    yield "proc/net", Link("proc/self/net")
    yield "proc/mounts", Link("proc/self/mounts")
    dmi = """sys_vendor NVIDIA; product_name DGXB200; board_vendor Nvidia Board;
        board_name DGXB200 Mainboard; bios_vendor AMI; bios_version 1.6.7; bios_date 03/11/2025"""
    yield from device("class/dmi", "sys/devices/virtual/dmi/id", dmi)


# Processors and memory.

USER, NICE, SYSTEM, IOWAIT = (10**7, 9 * 10**7), (4_000, 90_000), (10**6, 9 * 10**6), (10**4, 10**5)
IRQ, SOFTIRQ, STEAL, GUESTS = (10**3, 10**4), (2 * 10**4, 10**5), (10, 900), (100, 3_000)
STAT = (USER, NICE, SYSTEM, (0, 1), IOWAIT, IRQ, SOFTIRQ, STEAL, GUESTS, GUESTS)
INTERRUPTS, SOFTIRQS = 812, 10
CPU, NODE = "sys/devices/system/cpu", "sys/devices/system/node"
FREQUENCY = (800_000, 3_900_000)

#: Of proc/meminfo; a NUMA node has its share of these. It has some of its own as well.
NODE_MEMINFO = """MemTotal MemFree SwapCached Active Inactive Active(anon) Inactive(anon)
    Active(file) Inactive(file) Unevictable Mlocked Dirty Writeback Mapped AnonPages Shmem
    KernelStack PageTables SecPageTables KReclaimable Slab SReclaimable SUnreclaim AnonHugePages
    HugePages_Total HugePages_Free"""
NUMASTAT = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")


def cpulist(part: int, parts: int) -> str:
    """The logical cores of one of several equal parts of the machine."""
    size = FIRST_THREADS // parts
    starts = (part * size + thread * FIRST_THREADS for thread in range(THREADS))
    return ",".join(f"{start}-{start + size - 1}" for start in starts)


def stat() -> Iterator[str]:
    """/proc/stat. Idle time is what is left of the uptime."""
    cores = [[number(c, "stat", cpu, i) for i, c in enumerate(STAT)] for cpu in range(CPUS)]
    for core in cores:
        core[3] = UPTIME * 100 - sum(core[:8])
    yield row("cpu ", *map(sum, zip(*cores, strict=True)))
    for cpu, core in enumerate(cores):
        yield row(f"cpu{cpu}", *core)
    irqs = [number((1, 10**8), "irq", irq) * (irq % 3 == 0) for irq in range(INTERRUPTS)]
    yield row("intr", sum(irqs) + 48_211_903_771, *irqs)
    yield "ctxt 391820114733\nbtime 1746093382\nprocesses 88214019\n"
    yield "procs_running 61\nprocs_blocked 3\n"
    soft = [number((10**3, 10**9), "softirq", irq) for irq in range(SOFTIRQS)]
    yield row("softirq", sum(soft), *soft)


def cpuinfo() -> Iterator[str]:
    for cpu in range(CPUS):
        package, core = divmod(cpu % FIRST_THREADS, CORES)
        yield (
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n"
            "model name\t: INTEL(R) XEON(R) PLATINUM 8592+\nstepping\t: 2\n"
            f"microcode\t: 0x210002a9\ncpu MHz\t\t: {number(FREQUENCY, cpu) / 1000:.3f}\n"
            f"cache size\t: 327680 KB\nphysical id\t: {package}\nsiblings\t: {THREADS * CORES}\n"
            f"core id\t\t: {core}\ncpu cores\t: {CORES}\nflags\t\t: fpu vme tsc msr avx2 avx512f\n"
            "bugs\t\t: spectre_v1 spectre_v2\nbogomips\t: 3800.00\n\n"
        )


def cpu_files(cpu: int) -> Iterator[Entry]:
    directory, policy = f"{CPU}/cpu{cpu}", f"{CPU}/cpufreq/policy{cpu}"
    thread = cpu % FIRST_THREADS
    package, core = divmod(thread, CORES)
    yield from attributes(
        directory,
        f"""topology/physical_package_id {package}; topology/core_id {core};
        topology/core_siblings_list {cpulist(package, PACKAGES)};
        topology/thread_siblings_list {thread},{thread + FIRST_THREADS};
        thermal_throttle/core_throttle_count {number((0, 900), "throttle", package, core)};
        thermal_throttle/package_throttle_count {(31, 1207)[package]}""",
    )
    yield f"{directory}/cpufreq", Link(policy)
    yield from attributes(
        policy,
        f"""scaling_cur_freq {number(FREQUENCY, cpu)}; scaling_min_freq {FREQUENCY[0]};
        scaling_max_freq {FREQUENCY[1]}; scaling_driver intel_pstate; related_cpus {cpu};
        scaling_governor performance; scaling_available_governors performance powersave;
        scaling_setspeed <unsupported>""",
    )


def shares(total: int, key: str) -> list[int]:
    """A number for each NUMA node, that add up to a total."""
    weights = [number((85, 115), key, node) for node in range(NODES)]
    others = [total * weight // sum(weights) for weight in weights[1:]]
    return [total - sum(others), *others]


def node_files(node: int, host: dict[str, int]) -> Iterator[Entry]:
    """A NUMA node, with its share of the host's memory in kB. A socket has 4 of them."""
    sizes = {key: shares(host[key], key)[node] for key in NODE_MEMINFO.split()}
    sizes["MemUsed"] = sizes["MemTotal"] - sizes["MemFree"]
    sizes["FilePages"] = shares(host["Cached"] + host["Buffers"], "FilePages")[node]
    meminfo = (
        f"Node {node} {key + ':':<15} {value:>8}{' kB' * (not key.startswith('Huge'))}\n"
        for key, value in sizes.items()
    )
    numastat = (row(name, number((9_000, 9 * 10**10), name, node)) for name in NUMASTAT)
    hops = (10 if to == node else 12 if to // 4 == node // 4 else 21 for to in range(NODES))
    directory = f"{NODE}/node{node}"
    yield f"{directory}/meminfo", "".join(meminfo)
    yield f"{directory}/numastat", "".join(numastat)
    yield f"{directory}/distance", row(*hops)
    yield f"{directory}/cpulist", row(cpulist(node, NODES))


def processors() -> Iterator[Entry]:
    yield "proc/stat", "".join(stat())
    yield "proc/cpuinfo", "".join(cpuinfo())
    for name in ("online", "possible"):
        yield f"{CPU}/{name}", f"0-{CPUS - 1}\n"
        yield f"{NODE}/{name}", f"0-{NODES - 1}\n"
    for cpu in range(CPUS):
        yield from cpu_files(cpu)
    meminfo = [line.split() for line in (STATIC / "proc/meminfo").read_text().splitlines()]
    for node in range(NODES):
        yield from node_files(node, {key[:-1]: int(value) for key, value, *_ in meminfo})


# PCI: the devices by bus and function.


def pci(bus: int, function: int = 0) -> str:
    """Each bus is below a root port of its own."""
    root = f"0000:{bus - 1:02x}"
    return f"sys/devices/pci{root}/{root}:01.0/0000:{bus:02x}:00.{function}"


class Hca(NamedTuple):
    """An adapter of one port: InfiniBand, or RoCE on Ethernet."""

    bus: int
    function: int = 0
    roce: bool = False
    up: bool = True

    @property
    def path(self) -> str:
        return pci(self.bus, self.function)


HCAS = (
    *(Hca(0x18), Hca(0x29, 0, True), Hca(0x29, 1, True), Hca(0x40), Hca(0x4F), Hca(0x5E)),
    *(Hca(0x9A), Hca(0xAA, 0, True), Hca(0xAA, 1, True, up=False), Hca(0xC0), Hca(0xCE), Hca(0xDC)),
)
DISKS = (0x02, 0x03, 0x12, 0x13, 0x24, 0x25, 0x82, 0x83, 0x92, 0x93)
ONBOARD = tuple(pci(0x0B, function) for function in range(2))


def pci_device(path: str, driver: str, text: str) -> Iterator[Entry]:
    yield from device("bus/pci", path, text)
    drivers = f"sys/bus/pci/drivers/{driver}"
    yield f"{path}/driver", Link(drivers)
    yield f"{drivers}/{path.rpartition('/')[2]}", Link(path)


def pci_devices() -> Iterator[Entry]:
    for hca in HCAS:
        kind = "class 0x020000" if hca.roce else "class 0x020700"
        ids = f"{kind}; vendor 0x15b3; device 0x1021; numa_node {hca.bus // 32}"
        yield from pci_device(hca.path, "mlx5_core", ids)
    for bus in DISKS:
        ids = f"class 0x010802; vendor 0x144d; device 0xa824; numa_node {bus // 32}"
        yield from pci_device(pci(bus), "nvme", ids)
    for path in ONBOARD:  # the firmware does not say where they are
        ids = "class 0x020000; vendor 0x8086; device 0x1563; numa_node -1"
        yield from pci_device(path, "ixgbe", ids)


# Network.


class Interface(NamedTuple):
    name: str
    speed: int | None = None  #: Mb/s; None has neither speed nor duplex
    parent: str = ""  #: the PCI device; a virtual one has none
    up: bool = True
    mtu: int = 1500
    kind: int = 1  #: ARPHRD_*
    flags: str = "0x1003"

    @property
    def path(self) -> str:
        return f"{self.parent or 'sys/devices/virtual'}/net/{self.name}"


def hca_interface(hca: Hca) -> Interface:
    if not hca.roce:
        return Interface(f"ibp{hca.bus}s0", 400_000, hca.path, mtu=4092, kind=32)
    name = f"enp{hca.bus}s0f{hca.function}np{hca.function}"
    return Interface(name, 200_000 if hca.up else -1, hca.path, hca.up, mtu=9000)


SLAVES = tuple(
    Interface(f"eno{port}", 10_000, path, flags="0x1803") for port, path in enumerate(ONBOARD, 1)
)
BOND = Interface("bond0", 20_000, flags="0x1403")
#: As in proc/1/net/dev; the last ones are hidden by default.
INTERFACES = (
    Interface("lo", mtu=65536, kind=772, flags="0x9"),
    *SLAVES,
    BOND,
    *map(hca_interface, HCAS),
    Interface("docker0", mtu=1450),
    Interface("br-6d1f0c2a9b3e", -1, up=False),
    Interface("veth1c9a0d4", 10_000, flags="0x1103"),
    Interface("veth7be2215", 10_000, flags="0x1103"),
)

CONNTRACK = """entries  clashres found new invalid ignore delete chainlength insert insert_failed \
drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
"""


def interface_files(index: int, interface: Interface) -> Iterator[Entry]:
    name, _, parent, up, mtu, kind, flags = interface
    octets = (name != "lo") * [number((0, 256), name, i) for i in range(20 if kind == 32 else 6)]
    downs = number((1, 60), name, "carrier")
    text = f"""operstate {"unknown" if name == "lo" else "up" if up else "down"}; mtu {mtu};
        address {":".join(f"{octet:02x}" for octet in octets) or "00:00:00:00:00:00"};
        carrier {up:d}; carrier_changes {2 * downs + up}; carrier_up_count {downs + up};
        carrier_down_count {downs}; flags {flags}; ifindex {index}; iflink {index}; type {kind}"""
    if interface.speed is not None:
        text += f"; speed {interface.speed}; duplex {'full' if up else 'unknown'}"
    yield from device("class/net", interface.path, text, parent)


def hexadecimal(name: str, columns: Iterable[int | None]) -> Iterator[str]:
    """A row for each logical core of numbers below those given; None is the core's number."""
    for cpu in range(CPUS):
        numbers = [cpu if top is None else number((0, top), name, cpu, top) for top in columns]
        yield row(*(f"{value:08x}" for value in numbers))


def network() -> Iterator[Entry]:
    softnet = (2**31, 911, 40_009, *6 * (1,), 90_001, 9, 12, None, 8, 5)
    yield "proc/1/net/softnet_stat", "".join(hexadecimal("softnet", softnet))
    conntrack = hexadecimal("conntrack", (1, *range(9_000, 9_016)))
    yield "proc/1/net/stat/nf_conntrack", CONNTRACK + "".join(conntrack)
    for index, interface in enumerate(INTERFACES, 1):
        yield from interface_files(index, interface)
    yield "sys/class/net/bonding_masters", f"{BOND.name}\n"  # a file among links
    yield f"{BOND.path}/bonding/slaves", row(*(slave.name for slave in SLAVES))
    for slave in SLAVES:
        yield f"{BOND.path}/lower_{slave.name}", Link(slave.path)
        yield f"{slave.path}/bonding_slave/mii_status", "up\n"


COUNTERS = {
    (9**15, 9**16): "port_rcv_data port_xmit_data",
    (9**11, 9**13): """port_rcv_packets port_xmit_packets unicast_rcv_packets
        unicast_xmit_packets port_xmit_wait""",
    (900, 90_000): "multicast_rcv_packets multicast_xmit_packets",
    (0, 400): """VL15_dropped excessive_buffer_overrun_errors link_downed link_error_recovery
        local_link_integrity_errors port_rcv_constraint_errors port_rcv_errors
        port_rcv_remote_physical_errors port_rcv_switch_relay_errors port_xmit_constraint_errors
        port_xmit_discards symbol_error""",
}
#: These an adapter does not have.
NO_PMA = {"mlx5_2": "VL15_dropped port_xmit_wait symbol_error port_rcv_switch_relay_errors"}
HW_COUNTERS = """rx_write_requests rx_read_requests rx_atomic_requests rx_dct_connect out_of_buffer
    out_of_sequence duplicate_request rnr_nak_retry_err packet_seq_err implied_nak_seq_err
    local_ack_timeout_err resp_local_length_error resp_cqe_error req_cqe_error
    req_remote_invalid_request req_remote_access_errors resp_remote_access_errors
    resp_cqe_flush_error req_cqe_flush_error req_transport_retries_exceeded
    req_rnr_retries_exceeded """
ROCE_COUNTERS = """roce_adp_retrans roce_adp_retrans_to roce_slow_restart roce_slow_restart_cnps
    roce_slow_restart_trans rp_cnp_ignored rp_cnp_handled np_ecn_marked_roce_packets np_cnp_sent
    rx_icrc_encapsulated"""


def infiniband() -> Iterator[Entry]:
    for index, hca in enumerate(HCAS):
        name = f"mlx5_{index}"
        guid = f"9803:9b03:00{hca.bus:02x}:{0xC180 + index:04x}"
        path = f"{hca.path}/infiniband/{name}"
        identity = f"""fw_ver 28.{39 + hca.roce}.{1002 + index}; hca_type MT4129; hw_rev 0;
            board_id MT_00000008{34 + hca.roce}; node_guid {guid}; sys_image_guid {guid};
            node_type 1: CA; node_desc dgx-07 {name}"""
        yield from device("class/infiniband", path, identity, hca.path)
        port = f"{path}/ports/1"
        rate = "200 Gb/sec (4X HDR)" if hca.roce else "400 Gb/sec (4X NDR)"
        yield from attributes(
            port,
            f"""state {"4: ACTIVE" if hca.up else "1: DOWN"}; gids/0 fe80:0000:0000:0000:{guid};
            phys_state {"5: LinkUp" if hca.up else "3: Disabled"};
            rate {rate if hca.up else "40 Gb/sec (4X QDR)"}; hw_counters/lifespan 10;
            link_layer {"Ethernet" if hca.roce else "InfiniBand"};
            lid {hex(0 if hca.roce else 40 + index)}; sm_lid {hex(not hca.roce)}""",
        )
        for span, names in COUNTERS.items():
            for counter in names.split():
                known = counter not in NO_PMA.get(name, "")
                value = number(span, name, counter) if known else "N/A (no PMA)"
                yield f"{port}/counters/{counter}", row(value)
        for counter in (HW_COUNTERS + ROCE_COUNTERS * hca.roce).split():
            yield f"{port}/hw_counters/{counter}", row(number((0, 90_000), name, counter))
        if hca.roce:  # InfiniBand's gives EINVAL
            yield f"{port}/gid_attrs/ndevs/0", f"{hca_interface(hca).name}\n"


# Disks, arrays and mounts.

#: The second is being rebuilt after a failure.
ARRAYS = {
    "md0": "array_state clean; level raid1; raid_disks 2; degraded 0; sync_action idle",
    "md1": "array_state active; level raid6; raid_disks 7; degraded 1; sync_action recover",
}
#: Partition, state and slot, as in proc/mdstat.
MEMBERS = {
    "md0": ("nvme0n1p2 in_sync 0", "nvme1n1p2 in_sync 1"),
    "md1": (
        *(f"nvme{slot + 2}n1p1 in_sync {slot}" for slot in range(6)),
        *("nvme8n1p1 faulty none", "nvme9n1p1 spare 6"),
    ),
}


def controller(name: str) -> str:
    """Of a disk or partition, nvme7 of nvme7n1p1."""
    return f"{pci(DISKS[int(name[4])])}/nvme/{name[:5]}"


def block_path(name: str) -> str:
    if not name.startswith("nvme"):
        return f"sys/devices/virtual/block/{name}"
    disk, part, _ = name.partition("p")
    return f"{controller(name)}/{disk}" + f"/{name}" * bool(part)


def block_files(dev: str, blocks: int, name: str) -> Iterator[Entry]:
    """A disk or partition; ``blocks`` are kB."""
    path = block_path(name)
    text = f"dev {dev}; size {2 * blocks}; ro 0"
    if "p" in name:
        yield from device("class/block", path, f"{text}; partition {name[-1]}")
    else:
        text += "; removable 0; queue/rotational 0; queue/logical_block_size 512"
        yield f"sys/block/{name}", Link(path)
        parent = controller(name) if name.startswith("nvme") else ""
        yield from device("class/block", path, text, parent)
    yield f"run/udev/data/b{dev}", f"E:DEVNAME=/dev/{name}\nE:SUBSYSTEM=block\n"


def disks() -> Iterator[Entry]:
    for index, bus in enumerate(DISKS):
        model = "MZ1L2960HCJR-00A07; firmware_rev GDC7302Q"
        if index > 1:
            model = "MZWLO3T8HCLS-00A07; firmware_rev OPPA4B5Q"
        serial = number((10**5, 10**6), "serial", index)
        identity = f"model SAMSUNG {model}; serial S6CVNE0W{serial}; state live; transport pcie"
        yield from device("class/nvme", controller(f"nvme{index}"), identity, pci(bus))
    for line in (STATIC / "proc/partitions").read_text().splitlines()[2:]:
        major, minor, blocks, name = line.split()
        yield from block_files(f"{major}:{minor}", int(blocks), name)
    yield from attributes(block_path("dm-0"), "dm/name vg0-home; dm/uuid LVM-h5Qm2Zr8cT0w")
    yield f"{block_path('dm-0')}/slaves/nvme0n1p3", Link(block_path("nvme0n1p3"))
    for array, text in ARRAYS.items():
        directory = f"{block_path(array)}/md"
        yield from attributes(directory, f"{text}; metadata_version 1.2")
        for part, state, slot in map(str.split, MEMBERS[array]):
            yield from attributes(f"{directory}/dev-{part}", f"state {state}; slot {slot}")
            yield f"{directory}/dev-{part}/block", Link(block_path(part))


def mounts() -> Iterator[Entry]:
    """proc/mounts after proc/1/mountinfo, and the mounts' points."""
    table = []
    for line in (STATIC / "proc/1/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, options = before.split()[4:6]
        fstype, source, _ = after.split()
        table.append(row(source, point, fstype, options, 0, 0))
        yield point[1:].replace("\\040", " "), None
    yield "proc/1/mounts", "".join(table)


# Power and temperatures.

RAPL = "sys/devices/virtual/powercap/intel-rapl"


def powercap() -> Iterator[Entry]:
    yield from device("class/powercap", RAPL, "enabled 1")
    for package in range(PACKAGES):
        zone = f"{RAPL}/intel-rapl:{package}"
        for path, name, top in (
            (zone, f"package-{package}", 262_143_328_850),
            (f"{zone}/intel-rapl:{package}:0", "dram", 65_712_999_613),
        ):
            energy = number((0, top), path)
            text = f"name {name}; energy_uj {energy}; max_energy_range_uj {top}; enabled 1"
            yield from device("class/powercap", path, text)


#: Its old driver keeps the values in the device, beside the chip.
ACPI_METER = """name power_meter; power1_average 6214000000; power1_average_interval 1000;
    power1_is_battery 0; power1_oem_info Intel"""
SUPPLY = """name pmbus; in1_label vin; in1_input 230250; in2_label vout1; in2_input 12187;
    curr1_label iin; curr1_input 8812; power1_label pin; power1_input 2011000000;
    power2_label pout1; power2_input 1904000000; fan1_input 11328; fan2_input 0; fan2_fault 1;
    temp1_input 41250"""
#: Three chips of one device, two of them of one name: neither tells them apart.
BOARD = (
    "name board; temp1_label Inlet; temp1_input 24500",
    "name board; temp1_label Outlet; temp1_input 47750; fan1_input 7920",
    "name board_vrm; temp1_input 63125; in0_input 1798",
)


def temperatures(chip: str, parent: str, labels: Iterable[str]) -> str:
    parts = [f"name {chip}"]
    for index, label in enumerate(labels, 1):
        value = number((300, 800), parent, label) * 100
        parts += [f"temp{index}_label {label}", f"temp{index}_input {value}"]
        parts += [f"temp{index}_max 93000", f"temp{index}_crit 103000"]
    return ";".join(parts)


def hwmon() -> Iterator[Entry]:
    acpi = "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00"
    i2c = "sys/devices/pci0000:00/0000:00:1f.4/i2c-0/0-0058"
    board = "sys/devices/platform/board-sensors.0"
    yield from device("bus/acpi", acpi, ACPI_METER)
    yield from device("bus/i2c", i2c, "name pmbus")
    yield from device("bus/platform", board, "")
    chips = [(acpi, ""), (i2c, SUPPLY), *((board, text) for text in BOARD)]
    for package in range(PACKAGES):
        path = f"sys/devices/platform/coretemp.{package}"
        yield from device("bus/platform", path, "")
        labels = [f"Package id {package}", *(f"Core {core}" for core in range(CORES))]
        chips.append((path, temperatures("coretemp", path, labels)))
    for index in range(len(DISKS)):
        path = controller(f"nvme{index}")
        chips.append((path, temperatures("nvme", path, ("Composite", "Sensor 1"))))
    for hca in HCAS:
        chips.append((hca.path, temperatures("mlx5", hca.path, ("asic", "Module0"))))
    for index, (parent, text) in enumerate(chips):
        # A device of a class has its children beside its files, any other in a directory by class.
        directory = parent if "/nvme/" in parent else f"{parent}/hwmon"
        yield from device("class/hwmon", f"{directory}/hwmon{index}", text, parent)


PARTS = (once, processors, pci_devices, network, infiniband, disks, mounts, powercap, hwmon)


def write(root: Path) -> None:
    """Writes the tree into a directory that is empty, or not there."""
    made = set()
    for part in PARTS:
        for name, content in part():
            path = root / name
            directory = path if content is None else path.parent
            if directory not in made:
                directory.mkdir(parents=True, exist_ok=True)
                made.add(directory)
            if isinstance(content, Link):
                path.symlink_to(os.path.relpath(root / content, path.parent))
            elif content is not None:
                path.write_text(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
