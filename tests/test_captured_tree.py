"""Every lane on the captured tree: values read off by eye, node_exporter's, and spoilt files."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest

from esnode.collectors import COLLECTORS
from esnode.collectors.infiniband import KINDS, PHYSICAL_STATES, STATES
from esnode.collectors.numa import KINDS as ALLOCATIONS
from esnode.config import Config

from . import captured
from .collectors.exporter import node_exporter
from .collectors.test_numa import node
from .collectors.test_raid import ARRAYS
from .hosts import Rows, Tree, lane, rows

LANES = sorted({cls.lane for cls in COLLECTORS} - {"gpu"})
DETAIL = {key: True for key in Config.__struct_fields__ if key.endswith("_detail")}

#: Links that the archive lacks to devices that it has.
NVME = "devices/pci0000:00/0000:00:02.1/0000:01:00.0/nvme/nvme0"
LINKS = {
    "class/hwmon/hwmon3": f"../../{NVME}/hwmon3",
    "block/nvme0n1": f"../{NVME}/nvme0n1",
}


def unpack(root: Path) -> Path:
    """The host's root in a tree that is written below ``root``."""
    captured.write(captured.entries(captured.read()), root)
    for link, target in LINKS.items():
        path = root / "fixtures/sys" / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)
    return root / "fixtures"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("captured"))


def page(host: Path, lanes: list[str] = LANES, **keys: object) -> Rows:
    """What some lanes read at their second tick."""
    found = {}
    for name in lanes:
        each = lane(host, name, **keys)
        each.read(True)
        each.read(False)
        found |= rows(each.read(True))
    return found


@pytest.mark.parametrize("keys", [{}, DETAIL], ids=["usual", "detail"])
@pytest.mark.parametrize("name", LANES)
def test_no_lane_has_a_fault(
    host: Path, name: str, keys: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert page(host, [name], **keys)
    assert not [record for record in caplog.records if record.exc_info]


def test_detail_only_adds(host: Path) -> None:
    usual, detail = (page(host, ["devices"], **keys) for keys in ({}, DETAIL))
    assert usual.items() <= detail.items()
    families = {name.split("{")[0] for name in detail.keys() - usual.keys()}
    assert {"esnode_cpu_throttles_total", "esnode_infiniband_hw_total"} <= families


def infiniband(device: str, port: int, rate: float, *traffic: float) -> dict[str, float]:
    """``traffic``: bytes and packets received and sent, and the ticks of waiting."""
    labels = f'device="{device}",port="{port}"'
    names = ("rx_bytes_total", "tx_bytes_total", "rx_packets_total", "tx_packets_total")
    values = dict(zip((*names, "tx_wait_total"), traffic, strict=True))
    values |= {"rate_bytes": rate, "link_downed_total": 0}
    return {
        **{f"esnode_infiniband_{name}{{{labels}}}": value for name, value in values.items()},
        **{
            f'esnode_infiniband_errors_total{{{labels},kind="{kind}"}}': 0
            for kind in KINDS.values()
        },
        **{
            f'esnode_infiniband_state{{{labels},state="{word}"}}': word == "active"
            for word in STATES.values()
        },
    }


def arrays(**counts: tuple[int, ...]) -> dict[str, float]:
    """Active, failed, spare and required disks of each."""
    states = ("active", "failed", "spare", "required")
    return {
        f'esnode_md_disks{{array="{name}",state="{state}"}}': count
        for name, disks in counts.items()
        for state, count in zip(states, disks, strict=False)
    }


DEVICES = {
    **infiniband("mlx4_0", 1, 5e9, 8884894436, 106036453180, 87169372, 85734114, 3599),
    **infiniband("mlx4_0", 2, 5e9, 9841747136, 106161427560, 89332064, 88622850, 3846),
    **infiniband("mlx5_0", 1, 3.125e9, 72505381512, 11523046035392, 541889824, 10907922116, 0),
    # Its driver counts in words of eight bytes.
    **infiniband("hfi1_0", 1, 12.5e9, 1380366808104, 1094233306172, 638036947, 568318856, 0),
    'esnode_infiniband_physical_state{device="hfi1_0",port="1",state="link_up"}': 1,
    'esnode_infiniband_physical_state{device="hfi1_0",port="1",state="offline"}': 0,
    'esnode_infiniband_physical_state{device="mlx4_0",port="2",state="link_up"}': 1,
    'esnode_infiniband_physical_state{device="mlx4_0",port="2",state="sleep"}': 0,
    # "4: ACTIVE" is what the file says.
    'esnode_infiniband_physical_state{device="mlx5_0",port="1",state="link_up"}': 0,
    'esnode_infiniband_physical_state{device="mlx5_0",port="1",'
    'state="port_configuration_training"}': 1,
    'esnode_infiniband_info{device="hfi1_0",port="1",link_layer="InfiniBand",firmware="1.27.0"}': 1,
    'esnode_infiniband_info{device="mlx4_0",port="1",link_layer="InfiniBand",'
    'firmware="2.31.5050"}': 1,
    'esnode_infiniband_info{device="mlx4_0",port="2",link_layer="InfiniBand",'
    'firmware="2.31.5050"}': 1,
    'esnode_infiniband_info{device="mlx5_0",port="1",link_layer="InfiniBand",'
    'firmware="14.28.2006"}': 1,
    **{
        f'esnode_infiniband_hw_total{{device="mlx5_0",port="1",counter="{name}"}}': value
        for name, value in {
            "duplicate_request": 41,
            "implied_nak_seq_err": 0,
            "local_ack_timeout_err": 131,
            "out_of_sequence": 1,
            "packet_seq_err": 1,
            "req_cqe_error": 3481,
            "resp_cqe_error": 8109,
            "roce_adp_retrans_to": 4,
        }.items()
    },
    'esnode_cpu_package_energy_joules_total{package="0"}': 240422.366267,
    'esnode_cpu_package_energy_joules_total{package="10"}': 240422.366267,
    'esnode_cpu_domain_energy_joules_total{package="0",domain="core"}': 118821.284256,
    'esnode_hwmon_temperature_celsius{chip="nvme0",sensor="temp1",label="Composite"}': 43.85,
    'esnode_hwmon_temperature_celsius{chip="nvme0",sensor="temp2",label="Sensor 1"}': 43.85,
    'esnode_hwmon_temperature_celsius{chip="nvme0",sensor="temp3",label="Sensor 2"}': 45.85,
    'esnode_hwmon_temperature_celsius{chip="nvme0",sensor="temp9",label="Sensor 8"}': 43.85,
    **arrays(md0=(2, 0, 0, 2), md1=(2, 0, 0, 2), md10=(4, 0, 0, 4), md4=(3, 0, 0, 3)),
    **arrays(md5=(2, 1, 1, 3), md6=(3, 0, 1, 4), md7=(0, 0, 0), md8=(2, 0, 0, 11)),
    'esnode_cpu_throttles_total{package="0"}': 34818,
    'esnode_cpu_frequency_hertz{core="0"}': 1219917000,
    'esnode_disk_info{device="nvme0n1",model="CT2000P3SSD8",firmware="P9CR30A",rotational="0"}': 1,
    'esnode_disk_info{device="sda",rotational="1"}': 1,
}
#: The families that these rows are of, and what else they have on this tree.
FAMILIES = re.compile("esnode_(infiniband|cpu_|hwmon|md|disk_info)")
OTHERS = re.compile(
    'esnode_disk_info{device="(dm|md|sd)|esnode_infiniband_physical_state|_power_watts'
    "|esnode_infiniband_hw_total.* 0$"
)
MORE = {
    'esnode_infiniband_hw_total{device="mlx5_0",port="1",counter="roce_adp_retrans"}': 99,
    'esnode_infiniband_hw_total{device="mlx5_0",port="1",counter="roce_slow_restart_cnps"}': 131,
    'esnode_infiniband_hw_total{device="mlx5_0",port="1",counter="rx_read_requests"}': 175528982,
    'esnode_infiniband_hw_total{device="mlx5_0",port="1",counter="resp_cqe_flush_error"}': 4708,
    'esnode_cpu_throttles_total{package="0",core="0"}': 10084,
    'esnode_cpu_throttles_total{package="0",core="1"}': 523,
}


def test_devices_as_they_stand_in_the_files(host: Path) -> None:
    """Read off by eye; and no row more than these."""
    found = page(host, ["devices"])
    assert {name: found.get(name) for name in DEVICES} == DEVICES
    more = {f"{name} {found[name]:g}" for name in found.keys() - DEVICES.keys()}
    assert not {row for row in more if FAMILIES.match(row) and not OTHERS.search(row)}


def test_details_as_they_stand_in_the_files(host: Path) -> None:
    found = page(host, ["devices"], **DETAIL)
    assert {name: found.get(name) for name in MORE} == MORE


def test_no_device_complains(host: Path) -> None:
    devices = lane(host, "devices", **DETAIL)
    for _ in range(2):
        devices.read(True)
    parts = [part for part in devices.parts if FAMILIES.match(part.collector.metrics[0].name)]
    assert len(parts) >= 7
    assert {part.reason for part in parts} == {None}
    assert all(part.up for part in parts)


def test_the_host_as_it_stands_in_the_files(host: Path) -> None:
    expected = {
        "esnode_cpu_load_avg_1m": 0.02,
        "esnode_cpu_cores": 8,
        "esnode_memory_total_bytes": 15666184 * 1024,
        'esnode_disk_read_bytes_total{device="sda"}': 1003346126 * 512,
        'esnode_disk_discarded_bytes_total{device="sdb"}': 1925173784 * 512,
        'esnode_network_rx_bytes_total{iface="eth0"}': 438,
        "esnode_network_tcp_retrans_total": 348,
        'esnode_network_sockets{family="tcp",state="alloc"}': 59,
        'esnode_network_sockets{family="udp6",state="inuse"}': 9,
        "esnode_network_softnet_processed_total": sum(
            (0x00358FE3, 0x00953D1A, 0x00015C73, 0x01663FB2, 0x00008E78)
        ),
        "esnode_network_softnet_dropped_total": 0x6283 + 0x446 + 0x20E76 + 1,
        "esnode_network_softnet_squeezed_total": 0xB1 + 0xF0000769 + 0x109A4 + 0x11,
        'esnode_network_info{iface="eth0",address="01:01:01:01:01:01",duplex="full",'
        'operstate="up"}': 1,
        'esnode_network_up{iface="eth0"}': 1,
        'esnode_network_speed_bytes{iface="eth0"}': 125e6,
        'esnode_network_mtu_bytes{iface="eth0"}': 1500,
        'esnode_network_carrier_changes_total{iface="eth0"}': 2,
        'esnode_pressure_stalled_seconds_total{resource="memory",kind="full"}': 25e-6,
        "esnode_nfs_requests_total": 4329785,
    }
    found = page(host, ["host", "devices"])
    assert {name: found.get(name) for name in expected} == expected


# Files that are not what they should be.


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A tree, and those of its files that say something about the machine."""
    host = unpack(tmp_path_factory.mktemp("spoilt"))
    places = ("proc", "sys/block", "sys/class", "sys/devices/system", f"sys/{NVME}/hwmon3")
    # By the archive's own paths: some of its links lead out of the tree.
    files = captured.files(captured.read())
    spoilt = [
        host.parent / path
        for path in files
        if path.startswith(tuple(f"fixtures/{place}/" for place in places))
    ]
    for path in spoilt:
        path.chmod(0o600)
    return host, spoilt


#: What is known without a file's text: an array without disks, the kernel's and our own clock. A
#: speed may have any number of digits.
KNOWN = re.compile(
    r'\w+_info({|$)|esnode_md_disks{array="md7"|esnode_clock_|esnode_node_time_seconds$'
    "|esnode_network_speed_bytes{"
)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\0\x01\n", b"-1\n", b"%d\n" % 2**64, b"N/A (no PMA)\n", b"x" * 9000, b"1e5\n"],
)
def test_spoilt_files_have_no_values(
    spoilt: tuple[Path, list[Path]], text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host, files = spoilt
    for path in files:
        path.write_bytes(text)
    found = page(host, **DETAIL)
    assert not [record for record in caplog.records if record.exc_info]
    assert [name for name in found if not KNOWN.match(name)] == (
        [name for name in found if name.startswith("esnode_hwmon_temperature")]
        if text == b"-1\n"  # a sensor may well be below zero
        else []
    )


# node_exporter on the same tree.

PLAIN = {
    "port_data_received_bytes_total": "rx_bytes_total",
    "port_data_transmitted_bytes_total": "tx_bytes_total",
    "port_packets_received_total": "rx_packets_total",
    "port_packets_transmitted_total": "tx_packets_total",
    "port_transmit_wait_total": "tx_wait_total",
    "link_downed_total": "link_downed_total",
    "rate_bytes_per_second": "rate_bytes",
}
ERRORS = {
    "symbol_error_total": "symbol",
    "link_error_recovery_total": "link_error_recovery",
    "port_errors_received_total": "rx",
    "port_receive_remote_physical_errors_total": "rx_remote_physical",
    "port_receive_switch_relay_errors_total": "rx_switch_relay",
    "port_constraint_errors_received_total": "rx_constraint",
    "port_constraint_errors_transmitted_total": "tx_constraint",
    "port_discards_transmitted_total": "tx_discards",
    "local_link_integrity_errors_total": "local_link_integrity",
    "excessive_buffer_overrun_errors_total": "excessive_buffer_overrun",
    "vl15_dropped_total": "vl15_dropped",
}
NUMA = {"MemTotal": "total", "MemFree": "free", "MemUsed": "used"}
#: Families of ours in which the two must have the same rows.
COMMON = re.compile(
    r"esnode_(infiniband_(?!info$|hw_total$|info{|hw_total{)|cpu_(package|domain)_energy|hwmon_|md_disks|numa_memory"
    r"|numa_allocations|cpu_throttles|cpu_frequency)"
)


def ours(name: str, labels: dict[str, str], value: float) -> tuple[str, float] | None:
    """A row of node_exporter's as ours must be; None for one that we do not have."""
    family, _, rest = name.removeprefix("node_").partition("_")
    if family == "infiniband" and "port" in labels:
        port = f'device="{labels["device"]}",port="{labels["port"]}"'
        if rest in PLAIN:
            return f"esnode_infiniband_{PLAIN[rest]}{{{port}}}", value
        if rest in ERRORS:
            return f'esnode_infiniband_errors_total{{{port},kind="{ERRORS[rest]}"}}', value
        words = {"state_id": STATES, "physical_state_id": PHYSICAL_STATES}.get(rest)
        if words:
            prefix = f"esnode_infiniband_{rest.removesuffix('_id')}"
            return f'{prefix}{{{port},state="{words[int(value)]}"}}', 1
    if family == "rapl":
        domain, package = rest.removesuffix("_joules_total"), f'package="{labels["index"]}"'
        if domain == "package":
            return f"esnode_cpu_package_energy_joules_total{{{package}}}", value
        return f'esnode_cpu_domain_energy_joules_total{{{package},domain="{domain}"}}', value
    if name == "node_hwmon_temp_celsius":
        sensor = f'sensor="{labels["sensor"]}"'
        chip = labels["chip"].removeprefix("nvme_")
        label = labels["label"]
        row = f'esnode_hwmon_temperature_celsius{{chip="{chip}",{sensor},label="{label}"}}'
        return row, value
    if name in ("node_md_disks", "node_md_disks_required"):
        array = f'array="{labels["device"]}"'
        return f'esnode_md_disks{{{array},state="{labels.get("state", "required")}"}}', value
    if name.startswith("node_memory_numa_"):
        key = rest.removeprefix("numa_").removesuffix("_total")
        of = f'node="{labels["node"]}"'
        if key in NUMA:
            return f"esnode_numa_memory_{NUMA[key]}_bytes{{{of}}}", value
        if key in ALLOCATIONS:
            return f'esnode_numa_allocations_total{{{of},kind="{ALLOCATIONS[key]}"}}', value
    if name == "node_cpu_package_throttles_total":
        return f'esnode_cpu_throttles_total{{package="{labels["package"]}"}}', value
    if name == "node_cpu_core_throttles_total":  # its cores' numbers are the same here
        core = f'package="{labels["package"]}",core="{labels["core"]}"'
        return f"esnode_cpu_throttles_total{{{core}}}", value
    if name == "node_cpu_scaling_frequency_hertz":
        return f'esnode_cpu_frequency_hertz{{core="{labels["cpu"]}"}}', value
    return None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captured tree, with what it lacks for node_exporter or for the comparison."""
    host = unpack(tmp_path_factory.mktemp("machine"))
    tree = Tree(host)
    for array in (host / "sys/block").glob("md*"):
        shutil.rmtree(array)
    mdstat = "Personalities : [raid1]\n"
    for number, array in enumerate(ARRAYS.values()):
        tree.write(array.files(f"md{number}"))
        mdstat += f"md{number} : {array.mdstat}\n"
    stat = re.sub(r"intr .*", "intr 8885917", (host / "proc/stat").read_text())
    tree.write({"proc/mdstat": mdstat + "unused devices: <none>\n", "proc/stat": stat})
    tree.write({**node(1, "0-3", (10, 20)), **node(2, "4-7", (20, 10), 7777, 123)})
    return host


COLLECTORS_ON = ("infiniband", "mdadm", "rapl", "hwmon", "cpu", "cpufreq", "meminfo_numa")


@pytest.fixture(scope="module")
def theirs(machine: Path) -> Rows:
    """What node_exporter reads, as our rows."""
    samples = node_exporter(machine, *COLLECTORS_ON)
    done = {
        named["collector"]: value
        for name, named, value in samples
        if name.endswith("collector_success")
    }
    assert done == dict.fromkeys(COLLECTORS_ON, 1)
    labels = {
        (named["chip"], named["sensor"]): named["label"]
        for name, named, _ in samples
        if name == "node_hwmon_sensor_label"
    }
    found = {}
    for name, named, value in samples:
        if "sensor" in named:
            named = {**named, "label": labels[named["chip"], named["sensor"]]}
        if row := ours(name, named, value):
            found[row[0]] = row[1]
    return found


def test_node_exporter_agrees(machine: Path, theirs: Rows) -> None:
    found = {
        name: value
        for name, value in page(machine, ["host", "devices"], cpu_per_core_detail=True).items()
        if COMMON.match(name) and not ("_state{" in name and value == 0)
    }
    # node_exporter says of arrays that do not run that they need no disks.
    idle = [n for n, array in enumerate(ARRAYS.values()) if array.array_state == "inactive"]
    for number in idle:
        row = f'esnode_md_disks{{array="md{number}",state="required"}}'
        assert theirs.pop(row) == 0
        found.pop(row, None)
    assert found == pytest.approx(theirs, rel=1e-12)
    families = {name.split("{")[0] for name in found}
    every = {metric.name for cls in COLLECTORS for metric in cls.metrics}
    assert {name for name in every if COMMON.match(name)} - families == {
        *("esnode_hwmon_fan_rpm", "esnode_hwmon_power_watts", "esnode_hwmon_volts")
    }, "of which the tree has none"
