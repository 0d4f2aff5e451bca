"""collectors/hwmon.py: chips, their sensors and labels."""

import shutil
from pathlib import Path

import pytest

from esnode.collectors.hwmon import Hwmon
from tests.collectors.exporter import node_exporter
from tests.hosts import Tree, lane

CLASS = "sys/class/hwmon"


@pytest.fixture
def hwmon(tree: Tree) -> Tree:
    tree.use(Hwmon)
    return tree


def chip(tree: Tree, number: int, name: str, device: str = "", **files: str) -> None:
    """Writes a chip, on a device if one is named, with the files of its sensors."""
    folder = f"{CLASS}/hwmon{number}"
    tree.write({f"{folder}/{file}": f"{text}\n" for file, text in {"name": name, **files}.items()})
    link = tree.root / folder / "device"
    if device and not link.is_symlink():
        target = tree.root / "sys/devices" / device
        target.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def remove(tree: Tree, number: int) -> None:
    shutil.rmtree(tree.root / CLASS / f"hwmon{number}")


def row(metric: str, chip: str, sensor: str, label: str | None = None) -> str:
    tail = f',label="{label}"' if label is not None else ""
    return f'esnode_hwmon_{metric}{{chip="{chip}",sensor="{sensor}"{tail}}}'


def celsius(chip: str, sensor: str, label: str | None = None) -> str:
    return row("temperature_celsius", chip, sensor, label)


def cpu(package: str, sensor: str) -> str:
    return f'esnode_cpu_temperature_celsius{{package="{package}",sensor="{sensor}"}}'


def look(tree: Tree) -> None:
    """Lets the collector look now at what it would in a minute."""
    assert tree.lane is not None
    for part in tree.lane.parts:
        assert isinstance(part.collector, Hwmon)
        part.collector.look_due = 0


def test_sensors_of_every_kind(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "nct6798",
        "platform/nct6775.656",
        temp1_input="31500",
        temp1_label="SYSTIN",
        temp1_max="80000",
        temp1_type="4",
        temp2_input="-12250",
        temp10_input="40000",
        fan1_input="1320",
        fan2_input="0",
        fan1_min="0",
        in0_input="1016",
        in1_input="-5040",
        in1_label="-5V",
        power1_input="12345678",
        power1_cap="99000000",
        curr1_input="7000",
        energy1_input="8000",
        pwm1="128",
    )
    own = "nct6798-nct6775.656"
    assert hwmon.read() == {
        celsius(own, "temp1", "SYSTIN"): 31.5,
        celsius(own, "temp2"): -12.25,
        celsius(own, "temp10"): 40,
        row("fan_rpm", own, "fan1"): 1320,
        row("fan_rpm", own, "fan2"): 0,
        row("volts", own, "in0"): 1.016,
        row("volts", own, "in1", "-5V"): -5.04,
        row("power_watts", own, "power1"): 12.345678,
    }
    assert hwmon.errors == 0
    assert hwmon.up


def test_power_is_the_present_one_else_the_average(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "amdgpu",
        "0000:03:00.0",
        power1_input="90000000",
        power1_average="80000000",
        power2_average="70000000",
        power2_average_interval="1000",
    )
    assert hwmon.read() == {
        row("power_watts", "amdgpu-0000:03:00.0", "power1"): 90,
        row("power_watts", "amdgpu-0000:03:00.0", "power2"): 70,
    }


def test_power_meters_say_what_they_measure(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "power_meter",
        "ACPI000D:00",
        power1_average="250000000",
        power1_oem_info="Module Power Socket 0",
    )
    label = "Module Power Socket 0"
    assert hwmon.read() == {row("power_watts", "power_meter-ACPI000D:00", "power1", label): 250}


def test_cores_of_intels(hwmon: Tree) -> None:
    for package in (0, 1):
        chip(
            hwmon,
            3 + package,
            "coretemp",
            f"platform/coretemp.{package}",
            temp1_input=f"{50 + package}000",
            temp1_label=f"Package id {package}",
            temp2_input=f"{40 + package}000",
            temp2_label="Core 0",
            temp130_input="45000",
            temp130_label="Core 128",
            temp130_crit_alarm="0",
        )
    assert hwmon.read() == {
        cpu("0", "Package id 0"): 50,
        cpu("0", "Core 0"): 40,
        cpu("0", "Core 128"): 45,
        cpu("1", "Package id 1"): 51,
        cpu("1", "Core 0"): 41,
        cpu("1", "Core 128"): 45,
    }


def test_a_label_that_two_sensors_have_names_neither(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "coretemp",
        "platform/coretemp.1",
        temp2_input="41000",
        temp2_label="Core 0",
        temp3_input="42000",
        temp3_label="Core 0",
        temp4_input="43000",
    )
    assert hwmon.read() == {cpu("1", "temp2"): 41, cpu("1", "temp3"): 42, cpu("1", "temp4"): 43}


def test_processors_of_amds(hwmon: Tree) -> None:
    for package, device in enumerate(("0000:00:18.3", "0000:00:19.3")):
        chip(
            hwmon,
            package,
            "k10temp",
            f"pci0000:00/{device}",
            temp1_input=f"{60 + package}125",
            temp1_label="Tctl",
            temp3_input="55000",
            temp3_label="Tccd1",
        )
    chip(hwmon, 2, "k10temp", temp1_input="33000")
    rows = hwmon.read()
    assert rows == {
        cpu("0", "Tctl"): 60.125,
        cpu("0", "Tccd1"): 55,
        cpu("1", "Tctl"): 61.125,
        cpu("1", "Tccd1"): 55,
        cpu("0", "temp1"): 33,
    }


def test_a_chip_is_named_by_what_it_is_and_where(hwmon: Tree) -> None:
    """Not by its number, which is another one after the next start."""
    chip(hwmon, 0, "nvme", "pci0000:00/nvme/nvme0", temp1_input="1000", temp1_label="Composite")
    chip(hwmon, 1, "mlx5", "pci0000:00/0000:17:00.0", temp1_input="2000")
    chip(hwmon, 2, "acpitz", "virtual/thermal/thermal_zone0", temp1_input="3000")
    chip(hwmon, 3, "ucsi", temp1_input="4000")
    rows = hwmon.read()
    assert rows == {
        celsius("nvme0", "temp1", "Composite"): 1,
        celsius("mlx5-0000:17:00.0", "temp1"): 2,
        celsius("acpitz-thermal_zone0", "temp1"): 3,
        celsius("ucsi", "temp1"): 4,
    }
    # What was started after the next boot, in another order.
    other = Tree(hwmon.root / "other")
    other.use(Hwmon)
    chip(other, 4, "nvme", "pci0000:00/nvme/nvme0", temp1_input="1000", temp1_label="Composite")
    chip(other, 0, "mlx5", "pci0000:00/0000:17:00.0", temp1_input="2000")
    chip(other, 1, "acpitz", "virtual/thermal/thermal_zone0", temp1_input="3000")
    chip(other, 2, "ucsi", temp1_input="4000")
    assert other.read() == rows


@pytest.mark.parametrize("first", [0, 1, 8, 98])
def test_three_chips_of_a_device_are_numbered(hwmon: Tree, first: int) -> None:
    """In the order of their own numbers: 10 comes after 9."""
    for i in range(3):
        chip(hwmon, first + i, "jc42", "i2c-0", temp1_input=f"{i}000")
    assert hwmon.read() == {
        celsius("jc42-i2c-0", "temp1"): 0,
        celsius("jc42-i2c-0-2", "temp1"): 1,
        celsius("jc42-i2c-0-3", "temp1"): 2,
    }


def test_chips_of_a_device_keep_their_labels_while_others_go(hwmon: Tree) -> None:
    for i in range(3):
        chip(hwmon, i, "jc42", "i2c-0", temp1_input=f"{i}000")
    hwmon.read()
    remove(hwmon, 0)
    left = {celsius("jc42-i2c-0-2", "temp1"): 1, celsius("jc42-i2c-0-3", "temp1"): 2}
    assert hwmon.read() == left
    look(hwmon)
    assert hwmon.read() == left
    chip(hwmon, 9, "jc42", "i2c-0", temp1_input="9000")
    assert hwmon.read() == {**left, celsius("jc42-i2c-0", "temp1"): 9}
    assert hwmon.errors == 0


def test_labels_that_would_be_the_same(hwmon: Tree) -> None:
    chip(hwmon, 0, "a", "b", temp1_input="1000")
    chip(hwmon, 1, "a", "b", temp1_input="2000")
    chip(hwmon, 2, "a", "b-2", temp1_input="3000")
    chip(hwmon, 3, "a-b", temp1_input="4000")
    rows = hwmon.read()
    assert sorted(rows.values()) == [1, 2, 3, 4]
    assert hwmon.errors == 0


def test_chips_come_and_go(hwmon: Tree) -> None:
    chip(hwmon, 0, "nvme", "nvme0", temp1_input="30000")
    first = {celsius("nvme0", "temp1"): 30}
    assert hwmon.read() == first
    chip(hwmon, 1, "nvme", "nvme1", temp1_input="31000", temp2_input="32000")
    second = {celsius("nvme1", "temp1"): 31, celsius("nvme1", "temp2"): 32}
    assert hwmon.read() == {**first, **second}
    remove(hwmon, 0)
    assert hwmon.read() == second
    assert hwmon.up
    shutil.rmtree(hwmon.root / CLASS)
    assert hwmon.read() == {}
    chip(hwmon, 0, "nvme", "nvme0", temp1_input="30000")
    assert hwmon.read() == first


def test_another_chip_of_the_same_number(hwmon: Tree) -> None:
    """The lowest number that is free is the next chip's, also between two readings."""
    chip(hwmon, 0, "nvme", "nvme0", temp1_input="30000")
    chip(hwmon, 1, "mlx5", "pci", temp1_input="40000")
    hwmon.read()
    remove(hwmon, 0)
    chip(hwmon, 0, "nvme", "nvme1", temp1_input="31000")
    assert hwmon.read() == {celsius("nvme1", "temp1"): 31, celsius("mlx5-pci", "temp1"): 40}
    remove(hwmon, 0)
    chip(hwmon, 0, "mlx5", "pci", temp1_input="41000")
    assert hwmon.read() == {celsius("mlx5-pci", "temp1"): 40, celsius("mlx5-pci-2", "temp1"): 41}
    assert hwmon.errors == 0


def test_sensors_come_and_go(hwmon: Tree) -> None:
    chip(hwmon, 0, "nct6798", temp1_input="1000")
    hwmon.read()
    chip(hwmon, 0, "nct6798", temp1_label="CPU", temp2_input="2000")
    look(hwmon)
    assert hwmon.read() == {celsius("nct6798", "temp1", "CPU"): 1, celsius("nct6798", "temp2"): 2}
    hwmon.remove(f"{CLASS}/hwmon0/temp1_input")
    hwmon.read()
    assert hwmon.read() == {celsius("nct6798", "temp2"): 2}
    assert hwmon.up


def test_older_kernels_have_the_sensors_at_the_device(hwmon: Tree) -> None:
    """So has acpi_power_meter in those of today. The chip is named there, too, if at all."""
    device = "sys/devices/platform/coretemp.0"
    hwmon.write(
        {
            f"{device}/name": "coretemp\n",
            f"{device}/temp1_input": "50000\n",
            f"{device}/temp1_label": "Package id 0\n",
            "sys/devices/ACPI000D:00/name": "power_meter\n",
            "sys/devices/ACPI000D:00/power1_average": "300000000\n",
            "sys/devices/it87.656/fan1_input": "900\n",
            f"{CLASS}/hwmon0/uevent": "",
            f"{CLASS}/hwmon1/uevent": "",
            f"{CLASS}/hwmon2/uevent": "",
        }
    )
    for number, path in enumerate(("platform/coretemp.0", "ACPI000D:00", "it87.656")):
        link = hwmon.root / CLASS / f"hwmon{number}/device"
        link.symlink_to(hwmon.root / "sys/devices" / path)
    assert hwmon.read() == {
        cpu("0", "Package id 0"): 50,
        row("power_watts", "power_meter-ACPI000D:00", "power1"): 300,
        row("fan_rpm", "unknown-it87.656", "fan1"): 900,
    }


def test_a_sensor_that_knows_of_its_fault_is_not_shown(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "nct6798",
        temp1_input="127500",
        temp1_fault="1",
        temp2_input="30000",
        temp2_fault="0",
        fan1_input="0",
        fan1_fault="1",
    )
    good = {celsius("nct6798", "temp2"): 30, row("fan_rpm", "nct6798", "fan1"): 0}
    for _ in range(3):
        assert hwmon.read() == good
        look(hwmon)
    chip(hwmon, 0, "nct6798", temp1_fault="0", temp1_input="31000")
    assert hwmon.read() == {**good, celsius("nct6798", "temp1"): 31}
    chip(hwmon, 0, "nct6798", temp1_fault="1")
    assert hwmon.read() == good
    hwmon.remove(f"{CLASS}/hwmon0/temp1_fault")
    hwmon.read()
    assert hwmon.read() == {**good, celsius("nct6798", "temp1"): 31}
    assert hwmon.errors == 0


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("/proc/self/mem", True),  # EIO at its start
        ("/sys/class/net/lo/speed", False),  # EINVAL: what the driver has not
        ("/nowhere", False),
    ],
)
def test_a_sensor_that_cannot_be_read_costs_its_row(hwmon: Tree, what: str, told: bool) -> None:
    chip(hwmon, 0, "iwlwifi", temp1_input="1000", temp3_input="3000")
    (hwmon.root / CLASS / "hwmon0/temp2_input").symlink_to(what)
    for _ in range(3):
        assert hwmon.read() == {celsius("iwlwifi", "temp1"): 1, celsius("iwlwifi", "temp3"): 3}
        assert hwmon.up is not told
    assert bool(hwmon.errors) is told


@pytest.mark.parametrize("text", ["", "no number", "1 2", "N/A", "9" * 600, "\x00\xff"])
def test_a_value_that_is_none_costs_its_row(hwmon: Tree, text: str) -> None:
    chip(hwmon, 0, "pmbus", in1_input="1000", in2_input="2000")
    hwmon.read()
    chip(hwmon, 0, "pmbus", in2_input=text)
    assert hwmon.read() == {row("volts", "pmbus", "in1"): 1}
    chip(hwmon, 0, "pmbus", in2_input="3000")
    assert hwmon.read()[row("volts", "pmbus", "in2")] == 3


def test_names_of_any_bytes(hwmon: Tree) -> None:
    hwmon.write(
        {
            f"{CLASS}/hwmon0/name": b"\xffchip\n",
            f"{CLASS}/hwmon0/temp1_input": "1000\n",
            f"{CLASS}/hwmon0/temp1_label": b'a\xfe"b\\\nsecond line\n',
            f"{CLASS}/hwmon0/temp2_input": "2000\n",
            f"{CLASS}/hwmon0/temp2_label": "K\u00f6rper\n",
            f"{CLASS}/hwmon0/temp3_input": "3000\n",
            f"{CLASS}/hwmon0/temp3_label": "  \n",
            f"{CLASS}/hwmon0/temp\u0664_input": "4000\n",
            f"{CLASS}/hwmon0/temp1234567_input": "4000\n",
        }
    )
    odd = hwmon.root.joinpath("sys/devices").as_posix().encode() + b"/\xfd"
    Path(odd.decode(errors="surrogateescape")).mkdir(parents=True)
    (hwmon.root / CLASS / "hwmon0/device").symlink_to(odd.decode(errors="surrogateescape"))
    own = r"\\xffchip-\\xfd"
    assert hwmon.read() == {
        celsius(own, "temp1", r"a\\xfe\"b\\"): 1,
        celsius(own, "temp2", "K\u00f6rper"): 2,
        celsius(own, "temp3"): 3,
    }


def test_a_machine_without_chips(hwmon: Tree) -> None:
    assert hwmon.read() == {}
    assert hwmon.lane is not None
    assert hwmon.lane.parts[0].absent
    chip(hwmon, 0, "empty")
    hwmon.lane.parts[0].due = 0
    assert hwmon.read() == {}
    assert hwmon.lane.parts[0].absent
    chip(hwmon, 1, "nvme", "nvme0", temp1_input="30000")
    hwmon.lane.parts[0].due = 0
    assert hwmon.read() == {celsius("nvme0", "temp1"): 30}


def test_node_exporter_reads_the_same(hwmon: Tree) -> None:
    chip(
        hwmon,
        0,
        "nct6798",
        "platform/nct6775.656",
        temp1_input="31500",
        temp2_input="-12250",
        fan1_input="1320",
        in0_input="1016",
        power1_input="12345678",
        power2_average="2345678",
    )
    chip(hwmon, 1, "coretemp", "platform/coretemp.0", temp1_input="50000", temp2_input="41000")
    chip(hwmon, 2, "nvme", "nvme/nvme0", temp1_input="38850")
    kinds = {
        "node_hwmon_temp_celsius": "celsius",
        "node_hwmon_fan_rpm": "rpm",
        "node_hwmon_in_volts": "volts",
        "node_hwmon_power_watt": "watts",
        "node_hwmon_power_average_watt": "watts",
    }
    theirs = [
        (kinds[name], labels["sensor"], value)
        for name, labels, value in node_exporter(hwmon.root, "hwmon")
        if name in kinds
    ]
    ours = [
        (metric.name.rpartition("_")[2], labels[1], value)
        for metric, labels, value in lane(hwmon.root, [Hwmon]).read(True).items()
    ]
    assert len(ours) == 9
    assert sorted(ours) == sorted(theirs)
