"""collectors/links.py: state, speed and identity of interfaces."""

from pathlib import Path

import pytest

from esnode.agent import Agent
from esnode.collectors.links import Links
from esnode.config import Config, Settings
from esnode.dialects import TEXT
from tests.hosts import Rows, Tree
from tests.running import series

ETH0 = {
    "operstate": "up\n",
    "mtu": "9000\n",
    "speed": "25000\n",
    "duplex": "full\n",
    "carrier_changes": "3\n",
    "address": "52:54:00:12:34:56\n",
}


def device(name: str, files: dict[str, str] = ETH0) -> dict[str, str]:
    return {f"sys/class/net/{name}/{file}": text for file, text in files.items()}


def info(**labels: str) -> str:
    words = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"esnode_network_info{{{words}}}"


def of(rows: Rows, iface: str) -> Rows:
    """The rows of an interface by the family's last words."""
    return {
        name.partition("{")[0].removeprefix("esnode_network_"): value
        for name, value in rows.items()
        if f'iface="{iface}"' in name
    }


@pytest.fixture
def links(tree: Tree) -> Tree:
    tree.use(Links)
    tree.write(device("eth0"))
    return tree


def test_values_of_the_files(links: Tree) -> None:
    driver = links.root / "sys/bus/pci/drivers/mlx5_core"
    driver.mkdir(parents=True)
    (links.root / "sys/class/net/eth0/device").mkdir()
    (links.root / "sys/class/net/eth0/device/driver").symlink_to(driver)
    links.write({"sys/class/net/bonding_masters": "bond0\n"})
    assert links.read() == {
        'esnode_network_up{iface="eth0"}': 1,
        'esnode_network_mtu_bytes{iface="eth0"}': 9000,
        'esnode_network_speed_bytes{iface="eth0"}': 25e9 / 8,
        'esnode_network_carrier_changes_total{iface="eth0"}': 3,
        info(
            iface="eth0",
            driver="mlx5_core",
            address="52:54:00:12:34:56",
            duplex="full",
            operstate="up",
        ): 1,
    }
    assert links.errors == 0


@pytest.mark.parametrize(
    "speed", ["-1", "65535", "4294967295", "", "fast", "1e3", "9" * 400, "9" * 5000]
)
def test_an_invalid_speed_is_absent(speed: str, links: Tree) -> None:
    links.write(device("eth0", {**ETH0, "speed": f"{speed}\n", "duplex": "unknown\n"}))
    rows = links.read()
    assert of(rows, "eth0") == {"up": 1, "mtu_bytes": 9000, "carrier_changes_total": 3, "info": 1}
    assert info(iface="eth0", address="52:54:00:12:34:56", operstate="up") in rows
    assert links.errors == 0


def test_a_link_that_changes_is_described_anew_at_once(links: Tree) -> None:
    links.read()
    links.write(device("eth0", {"operstate": "down\n", "speed": "-1\n", "carrier_changes": "4\n"}))
    rows = links.read(tick=False)
    assert of(rows, "eth0") == {"up": 0, "mtu_bytes": 9000, "carrier_changes_total": 4, "info": 1}
    assert [name for name in rows if 'operstate="down"' in name]
    links.write(device("eth0", {"operstate": "up\n", "speed": "10000\n"}))
    assert of(links.read(tick=False), "eth0")["speed_bytes"] == 10e9 / 8


def test_interfaces_come_and_go(links: Tree) -> None:
    links.read()
    links.write(device("eth1", {"operstate": "unknown\n", "mtu": "1500\n"}))
    assert of(links.read(), "eth1") == {"up": 0, "mtu_bytes": 1500, "info": 1}
    for path in (links.root / "sys/class/net/eth1").iterdir():
        path.unlink()
    (links.root / "sys/class/net/eth1").rmdir()
    rows = links.read()
    assert of(rows, "eth1") == {}
    assert of(rows, "eth0")["up"] == 1
    assert links.errors == 0


def test_hidden_interfaces_and_odd_names(links: Tree) -> None:
    links.write(device("veth0a1b"))
    odd = "".join(map(chr, range(0xDC80, 0xDC8F)))  # as Python spells bytes that are no UTF-8
    links.write(device(odd))
    rows = links.read()
    assert of(rows, "veth0a1b") == {}
    assert of(rows, "\\\\x80" + "".join(f"\\\\x{n:x}" for n in range(0x81, 0x8F)))["up"] == 1


def test_without_the_directory_there_is_nothing(tree: Tree) -> None:
    tree.use(Links)
    assert tree.read() == {}
    assert not tree.up
    assert tree.errors == 0


def test_on_this_machine_the_kernels_messages_say_the_same_as_its_files() -> None:
    agent = Agent(Settings(Config(network_interface_exclude="")))
    for sampler in agent.samplers:
        sampler.read(True)
    rows = series(agent.store.page(TEXT).body)
    names = [path.name for path in Path("/sys/class/net").iterdir()]
    assert names
    for name in names:
        path = Path("/sys/class/net", name)
        if path.is_dir():
            found = of(rows, name)
            assert found["up"] == ((path / "operstate").read_text() == "up\n")
            assert found["mtu_bytes"] == int((path / "mtu").read_text())
            assert found["carrier_changes_total"] == int((path / "carrier_changes").read_text())
