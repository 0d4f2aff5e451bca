"""The configuration: one declaration from which TOML, environment, flags and docs derive.

A key is a field of :class:`Config` or, in the table ``[orchestrator]``, of :class:`Orchestrator`.
Its value comes from the first of: flags, environment, file, stand-ins, defaults.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = ("./esnode.toml", "/etc/esnode/esnode.toml")
#: Variables of others, which count only where nothing of ours sets the key. Container runtimes set
#: them, to one of ``IGNORED`` where they have chosen the devices by other means.
STAND_INS = {
    "gpu_visible_devices": "NVIDIA_VISIBLE_DEVICES",
    "mig_config_devices": "NVIDIA_MIG_CONFIG_DEVICES",
}
IGNORED = ("", "void")
#: Switches of what this version has not.
UNBUILT = ("enable_gpu_amd", "enable_app", "orchestrator.enabled")
SECRETS = frozenset({"managed_join_token", "orchestrator.token"})
#: Keys that count from the start of the agent on; a reload takes up all others. Those in a table,
#: too, where its name stands here.
AT_START = frozenset(
    (
        *("listen_address", "listen_socket_mode", "web_config_file"),
        *("enable_local_tsdb", "local_tsdb_path", "nvml_library"),
        *("path_procfs", "path_sysfs", "path_rootfs", "orchestrator"),
    )
)
MASK = "********"
#: Bytes that the kernel keeps of a unix socket's path.
LONGEST_SOCKET = 107
#: Names that a secret may hide behind, and the place of one in a URL.
_SECRET = re.compile("token|secret|password|key", re.IGNORECASE)
_CREDENTIALS = re.compile(
    # Up to the last @, where there is a colon: a password may hold a slash that is not escaped.
    r"(?<=//)([^/?#]*|[^/?#:\s\"]*:[^\s\"]*)(?=@)"
    r"|(?<=token=)[^&#\"]*|(?<=key=)[^&#\"]*|(?<=secret=)[^&#\"]*|(?<=password=)[^&#\"]*",
    re.IGNORECASE,
)

PSEUDO_FILE_SYSTEMS = (
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|fusectl"
    r"|fuse\.(lxcfs|gvfsd-fuse|portal|snapfuse)|hugetlbfs|mqueue|nsfs|overlay|proc|pstore|ramfs"
    r"|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tmpfs|tracefs)$"
)
SYSTEM_MOUNTS = (
    r"^/(proc|sys|run/credentials)($|/)"
    r"|^/(var/lib/(docker|containerd|containers/storage|kubelet|lxc|rancher)|run/(containerd|docker"
    r"|k3s/containerd|netns|user)|snap)/."
)
PARTS_OF_DISKS = (
    r"^((z?ram|loop|fd)\d+|(h|s|v|xv)d[a-z]+\d+|nvme\d+n\d+p\d+|nvme\d+c\d+n\d+"
    r"|(mmcblk|nbd|md)\d+p\d+)$"
)
CONTAINER_INTERFACES = r"^(veth|docker|br-|cali|flannel|cni|lxc|nodelocaldns)"


class ConfigError(Exception):
    """What is wrong, in one line that says what to write instead."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(map(_printable, message)))


class Orchestrator(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[orchestrator]``."""

    enabled: Annotated[bool, Meta(description="Run the orchestrator (not built yet).")] = False
    allow_public: Annotated[
        bool, Meta(description="Serve its API on other addresses than loopback.")
    ] = False
    token: Annotated[str | None, Meta(description="Bearer token that its API asks for.")] = None
    enable_zombie_reaper: Annotated[bool, Meta(description="Reap zombie processes.")] = True
    enable_turbo_mode: Annotated[bool, Meta(description="Tune for latency.")] = False
    enable_bin_packing: Annotated[bool, Meta(description="Pack tasks onto few GPUs.")] = False
    enable_flash_preemption: Annotated[bool, Meta(description="Preempt tasks of low priority.")] = (
        False
    )
    enable_dataset_prefetch: Annotated[bool, Meta(description="Prefetch data sets.")] = False
    enable_bandwidth_reserve: Annotated[bool, Meta(description="Reserve network bandwidth.")] = (
        False
    )
    enable_fs_cleanup: Annotated[bool, Meta(description="Clean up file systems.")] = False


def _shown(what: str) -> Meta:
    return Meta(description=f"{what} to show, as a regular expression; empty: all.")


def _hidden(what: str, *more: str) -> Meta:
    text = f"{what} to hide, as a regular expression; empty: none."
    return Meta(description=" ".join((text, *more)))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every key outside a table, with its default and limits."""

    listen_address: Annotated[
        str,
        Meta(
            description="Address and port to serve on, as `HOST:PORT` or `[IPv6]:PORT`; or a unix"
            " socket, as `unix:/PATH`."
        ),
    ] = "0.0.0.0:9100"
    listen_socket_mode: Annotated[
        str, Meta(pattern="^0?[0-7]{3}$", description="Mode of the unix socket's file.")
    ] = "0660"
    web_config_file: Annotated[
        str | None,
        Meta(description="YAML file with TLS, users and tokens of the HTTP server."),
    ] = None
    enable_metrics: Annotated[
        bool, Meta(description="Serve `/metrics`; 404 with the reason otherwise.")
    ] = True
    scrape_interval_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="Time between two ticks.")
    ] = 5
    scrape_max_age_seconds: Annotated[
        float,
        Meta(ge=0, le=3600, description="Age up to which a scrape gets the last reading; 0: none."),
    ] = 1
    scrape_wait_seconds: Annotated[
        float, Meta(ge=0, le=60, description="How long a scrape waits for a fresh reading.")
    ] = 0.05
    events_max_clients: Annotated[
        int, Meta(ge=0, le=4096, description="Clients that may follow `/events` at once.")
    ] = 1024
    events_max_clients_per_address: Annotated[
        int, Meta(ge=1, le=4096, description="How many of them from one address.")
    ] = 256
    mount_timeout_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="Time after which a silent mount counts as hung."),
    ] = 2

    enable_cpu: Annotated[bool, Meta(description="Collect node and CPU metrics.")] = True
    enable_memory: Annotated[bool, Meta(description="Collect memory and swap metrics.")] = True
    enable_disk: Annotated[bool, Meta(description="Collect disks and mounts.")] = True
    enable_network: Annotated[bool, Meta(description="Collect network metrics.")] = True
    enable_gpu: Annotated[bool, Meta(description="Collect NVIDIA GPUs.")] = True
    enable_power: Annotated[bool, Meta(description="Collect power and temperatures.")] = True
    enable_gpu_amd: Annotated[bool, Meta(description="Collect AMD GPUs (not built yet).")] = False
    enable_gpu_mig: Annotated[bool, Meta(description="Collect MIG instances.")] = False
    enable_gpu_events: Annotated[bool, Meta(description="Listen for GPU events.")] = False
    k8s_mode: Annotated[
        bool, Meta(description="Add the Kubernetes resource names to GPU and MIG information.")
    ] = False
    enable_app: Annotated[
        bool, Meta(description="Read a model server's own metrics (not built yet).")
    ] = False

    cpu_per_core_detail: Annotated[bool, Meta(description="CPU time of each core by state.")] = (
        False
    )
    memory_detail: Annotated[
        bool, Meta(description="The keys of meminfo that have no family of their own.")
    ] = False
    infiniband_detail: Annotated[bool, Meta(description="All InfiniBand hardware counters.")] = (
        False
    )
    gpu_detail: Annotated[bool, Meta(description="GPU counters by link and location.")] = False
    gpu_process_metrics: Annotated[bool, Meta(description="Memory of each GPU process.")] = False
    cpu_frequency: Annotated[
        bool | Literal["auto"], Meta(description="Read core frequencies; auto: up to 64 cores.")
    ] = "auto"

    gpu_visible_devices: Annotated[
        str,
        Meta(
            description="GPUs to collect, by comma: `all`, `none`, indexes, UUIDs or how they"
            " begin, MIG UUIDs (their GPU, with no other instance); empty: all."
        ),
    ] = "all"
    mig_config_devices: Annotated[
        str,
        Meta(
            description="GPUs whose MIG instances to collect, or single instances, written in the"
            " same way; empty: all."
        ),
    ] = ""
    nvml_library: Annotated[
        str,
        Meta(description="Path of libnvidia-ml.so.1; empty: where the loader or a driver has it."),
    ] = ""
    expected_gpus: Annotated[
        Annotated[int, Meta(ge=0, le=1024)] | None,
        Meta(description="How many GPUs the node should have."),
    ] = None
    peak_window_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="Window of minimum, mean and maximum readings.")
    ] = 60
    gpu_release_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="How long `gpu release` lets go of the driver.")
    ] = 300
    node_power_envelope_watts: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Power the node should not exceed.")
    ] = None

    degradation_window_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="Time over which degradation is judged."),
    ] = 60
    degradation_disk_latency_seconds: Annotated[
        float, Meta(ge=0, description="Mean time of a request above which a disk is degraded.")
    ] = 0.1
    degradation_disk_busy_percent: Annotated[
        float,
        Meta(ge=0, le=100, description="Time with requests above which a disk is degraded."),
    ] = 95
    degradation_network_drops_percent: Annotated[
        float,
        Meta(ge=0, le=100, description="Dropped packets above which an interface is degraded."),
    ] = 0.1
    degradation_network_retrans_percent: Annotated[
        float,
        Meta(
            ge=0, le=100, description="TCP segments sent again above which a network is degraded."
        ),
    ] = 1
    degradation_swap_bytes_per_second: Annotated[
        float, Meta(ge=0, description="Swap traffic, in and out, above which it is degraded.")
    ] = 1 << 20
    degradation_gpu_throttle_percent: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="Time with a slowdown for heat or by the hardware above which a GPU is"
            " degraded.",
        ),
    ] = 5
    degradation_gpu_ecc_errors: Annotated[
        int,
        Meta(ge=1, description="Uncorrected memory errors from which a GPU is degraded."),
    ] = 1
    degradation_gpu_nvlink_errors: Annotated[
        int, Meta(ge=1, description="NVLink errors from which a GPU is degraded.")
    ] = 10

    log_level: Annotated[
        Literal["error", "warn", "info", "debug", "trace"], Meta(description="What is logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="How it is logged.")] = "text"

    enable_local_tsdb: Annotated[bool, Meta(description="Keep a local history.")] = False
    local_tsdb_path: Annotated[str | None, Meta(description="Directory of the local history.")] = (
        None
    )
    local_tsdb_retention_hours: Annotated[
        int, Meta(ge=1, le=8760, description="Hours of history to keep.")
    ] = 48
    local_tsdb_max_disk_mb: Annotated[
        int, Meta(ge=1, description="Disk space of the history, in MB.")
    ] = 2048

    app_metrics_url: Annotated[str, Meta(description="Metrics page of the model server.")] = (
        "http://127.0.0.1:8000/metrics"
    )
    managed_server: Annotated[
        str | None, Meta(description="Controller to attach to, as `HOST:PORT`.")
    ] = None
    managed_cluster_id: Annotated[str | None, Meta(description="Cluster this node is in.")] = None
    managed_node_id: Annotated[str | None, Meta(description="This node's name there.")] = None
    managed_join_token: Annotated[
        str | None, Meta(description="Token that admits this node to the cluster.")
    ] = None
    managed_ca_file: Annotated[
        str | None,
        Meta(description="Authorities of the controller's certificate, as PEM; else the system's."),
    ] = None

    path_procfs: Annotated[str, Meta(description="Where the host's /proc is.")] = "/proc"
    path_sysfs: Annotated[str, Meta(description="Where the host's /sys is.")] = "/sys"
    path_rootfs: Annotated[str, Meta(description="Where the host's root directory is.")] = "/"

    disk_device_include: Annotated[str, _shown("Disks")] = ""
    disk_device_exclude: Annotated[str, _hidden("Disks")] = PARTS_OF_DISKS
    disk_mount_include: Annotated[str, _shown("Mount points")] = ""
    disk_mount_exclude: Annotated[str, _hidden("Mount points")] = SYSTEM_MOUNTS
    disk_fstype_include: Annotated[str, _shown("File systems")] = ""
    disk_fstype_exclude: Annotated[
        str,
        _hidden("File systems", "Overlay on `/` and tmpfs on `/dev/shm` are shown all the same."),
    ] = PSEUDO_FILE_SYSTEMS
    network_interface_include: Annotated[str, _shown("Interfaces")] = ""
    network_interface_exclude: Annotated[str, _hidden("Interfaces")] = CONTAINER_INTERFACES

    orchestrator: Orchestrator = Orchestrator()


class Key(msgspec.Struct, frozen=True):
    """One key: ``name`` is dotted inside a table, ``flag`` stands without its dashes."""

    name: str
    flag: str
    variable: str
    default: Any
    annotation: Any
    kinds: frozenset[type]
    description: str
    allowed: str

    @property
    def is_switch(self) -> bool:
        """Whether the flag works without a value."""
        return isinstance(self.default, bool)

    @property
    def is_pattern(self) -> bool:
        return self.name.endswith(("_include", "_exclude"))

    @property
    def is_path(self) -> bool:
        return self.name.startswith("path_") or self.name in (
            *("local_tsdb_path", "nvml_library", "web_config_file", "managed_ca_file"),
        )

    def of(self, config: Config) -> Any:
        """Its value."""
        return operator.attrgetter(self.name)(config)

    @property
    def at_start(self) -> bool:
        """Whether it counts from the start of the agent on, whatever is reloaded."""
        return self.name.partition(".")[0] in AT_START

    def parse(self, text: str) -> Any:
        """The value that a flag or variable spells; still to be checked by :meth:`accept`."""
        if text == "" and self.default is None:
            return None
        if bool in self.kinds and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if self.name.endswith("_seconds"):
            return parse_duration(text)
        for kind in (int, float):
            if kind in self.kinds:
                try:
                    return kind(text)
                except ValueError:
                    return text
        return text

    def accept(self, value: Any, where: str) -> Any:
        """The value, converted and within its limits; raises ConfigError naming ``where``."""
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError
            accepted = msgspec.convert(value, self.annotation)
            if self.name == "listen_address":
                parse_address(accepted)
            elif self.is_pattern:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what may mean another thing one day
                    re.compile(accepted)
            elif self.is_path and accepted:
                if "\0" in accepted:
                    raise ValueError
                accepted = str(Path(accepted).expanduser())
        except (ValueError, OverflowError, RuntimeError, re.error) as error:
            # RuntimeError: no such home directory, or a pattern that is nested too deep.
            detail = f" ({error})" if isinstance(error, (re.error, RuntimeError)) else ""
            whole = int in self.kinds and isinstance(value, float)
            shown = repr(value) if whole else spell(value)  # 8.0 is no whole number, and 8 is
            shown = MASK if self.name in SECRETS else masked(shown)
            raise ConfigError(
                f"{where}: {self.name}: found {shown}{detail}, allowed is {self.allowed}"
            ) from None
        return accepted


_WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False
}  # fmt: skip
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|[smhd])")


def parse_duration(text: str) -> float | str:
    """Seconds of ``5s``, ``500ms``, ``1m30s`` or a plain number; the text itself if it is none."""
    try:
        return float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            return text
        return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT``; raises ValueError.

    Of ``unix:/PATH``, the path and 0.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > LONGEST_SOCKET:
            raise ValueError(text)
        return path, 0
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    if not colon or not re.fullmatch(r"\d{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(text)
    if not re.fullmatch(r"[\w.:%-]*", host):
        raise ValueError(text)
    return host or "0.0.0.0", int(port)


def spell_address(host: str, port: int) -> str:
    """An address as :func:`parse_address` reads it."""
    if host.startswith("/"):
        return f"unix:{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _printable(letter: str) -> str:
    """A letter, or TOML's escape for one that would break the line or cannot be written."""
    if letter.isprintable():
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def spell(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int) and abs(value) >= 10**100:
        return "a number of more than 100 digits"  # Python refuses to write much longer ones
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{"".join(map(_printable, text))}"'
    names = {"dict": "a table", "list": "an array"}
    kind = type(value).__name__
    return names.get(kind, f"a {kind}")


def masked(text: str) -> str:
    """A text without the credentials of the URLs in it."""
    return _CREDENTIALS.sub(MASK, text)


def _alternatives(info: Any) -> list[Any]:
    """The types that a key's value can have, None aside."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _alternatives(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return [part for each in info.types for part in _alternatives(each)]
    return [] if isinstance(info, msgspec.inspect.NoneType) else [info]


_KINDS: dict[Any, type] = {
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
    msgspec.inspect.StrType: str,
    msgspec.inspect.LiteralType: str,
}


def _allowed(name: str, info: Any) -> str:
    """What one alternative of a key accepts, in words."""
    kind = _KINDS[type(info)]
    if kind is bool:
        return "true or false"
    if isinstance(info, msgspec.inspect.LiteralType):
        words = [str(value) for value in info.values]
        return words[0] if len(words) == 1 else "one of " + ", ".join(words)
    if kind in (int, float):
        word = "a whole number" if kind is int else "a number"
        low = f" above {info.gt:g}" if info.gt is not None else ""
        low = f" from {info.ge:g}" if info.ge is not None else low
        high = f" to {info.le:g}" if info.le is not None else ""
        return word + low + high + (" (seconds)" if name.endswith("_seconds") else "")
    if name == "listen_address":
        return (
            "text such as 0.0.0.0:9100 or [::]:9100, with a port from 1 to 65535, or"
            " unix:/run/esnode/agent.sock, with a path of up to 107 bytes"
        )
    if name == "listen_socket_mode":
        return "text of octal digits such as 0660"
    if name.endswith(("_include", "_exclude")):
        return "a regular expression"
    return "text"


def _keys(struct: Any, table: str = "") -> Iterator[Key]:
    hints = msgspec.inspect.type_info(struct)
    assert isinstance(hints, msgspec.inspect.StructType)
    annotations = get_type_hints(struct, include_extras=True)
    for field in hints.fields:
        if isinstance(field.type, msgspec.inspect.StructType):
            yield from _keys(field.type.cls, field.name + ".")
            continue
        name = table + field.name
        flat = name.replace(".", "_")
        if name == "orchestrator.enabled":
            flat = "enable_orchestrator"
        info = field.type
        parts = _alternatives(info)
        description = ""
        if isinstance(info, msgspec.inspect.Metadata):
            description = (info.extra_json_schema or {})["description"]
        yield Key(
            name=name,
            flag=flat.removesuffix("_seconds").replace("_", "-"),
            variable="ESNODE_" + flat.upper(),
            default=field.default,
            annotation=annotations[field.name],
            kinds=frozenset(_KINDS[type(part)] for part in parts),
            description=description,
            allowed=" or ".join(_allowed(name, part) for part in parts),
        )


KEYS: dict[str, Key] = {key.name: key for key in _keys(Config)}


class Arguments(msgspec.Struct, frozen=True):
    """A command line: the values of flags by key, the options, and the sub-command's words."""

    values: dict[str, Any] = {}
    config: str | None = None
    options: frozenset[str] = frozenset()
    command: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """The effective configuration, where each key's value is from, and what to warn about."""

    config: Config
    origins: dict[str, str] = {}
    file: str | None = None
    warnings: tuple[str, ...] = ()
    #: The command line, from which a reload starts.
    arguments: Arguments = Arguments()

    def value(self, name: str) -> Any:
        """The value of a key by its dotted name."""
        return KEYS[name].of(self.config)


#: Flags that are no keys and take no value.
OPTIONS = ("once", "version", "help", "no-color")


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Reads flags up to the first word that is none. Raises ConfigError."""
    flags = {key.flag: key for key in KEYS.values()}
    values: dict[str, Any] = {}
    options: set[str] = set()
    config: str | None = None
    left = list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        flag, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            flag = {"-h": "help", "-V": "version"}.get(word, word)
        if flag in OPTIONS and not equals:
            options.add(flag)
            continue
        key = flags.get(flag)
        off = flags.get(flag.removeprefix("no-"))
        if key is None and off is not None and off.is_switch and not equals:
            values[off.name] = False
            continue
        if key is None and flag != "config":
            shown = word.partition("=")[0]  # what follows may be a secret
            raise ConfigError(f"{shown}: unknown flag; the closest is --{closest(flag, flags)}")
        if not equals:
            if key is not None and key.is_switch and not (left and left[0].lower() in _WORDS):
                text = "true"
            elif left:
                text = left.pop(0)
            else:
                allowed = key.allowed if key else "the path of a file"
                raise ConfigError(f"--{flag}: a value is missing, allowed is {allowed}")
        if key is None:
            config = text
        else:
            values[key.name] = key.accept(key.parse(text), f"--{flag}")
    return Arguments(values, config, frozenset(options), tuple(left))


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like a name, whatever table it is in."""
    return max(
        known,
        key=lambda other: difflib.SequenceMatcher(
            None, name.rpartition(".")[2], other.rpartition(".")[2]
        ).ratio(),
    )


def nearest(name: str) -> Key:
    """The key that is most likely meant by a name which is none."""
    flat = {key.flag.replace("-", "_"): key for key in KEYS.values()}
    return flat.get(name.replace("-", "_")) or KEYS[closest(name, KEYS)]


def read_file(path: str) -> dict[str, Any]:
    """The checked values of a TOML file by key. Raises ConfigError."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return check(document(text, path), path)


def document(text: bytes, path: str) -> dict[str, Any]:
    """The text of a TOML file as dictionaries. Raises ConfigError, which names its path."""
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # invalid, not UTF-8, a number of 5000 digits
        raise ConfigError(f"{path}: invalid TOML: {str(error).splitlines()[0]}") from None


def check(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The checked values of a document by key. Raises ConfigError, which names its path."""
    values = {}
    tables = {name.partition(".")[0] for name in KEYS if "." in name}
    for name, value in document.items():
        if name in tables:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {name}: found {spell(value)}, allowed is a table")
            entries = [(f"{name}.{key}", entry) for key, entry in value.items()]
        else:
            entries = [(name, value)]
        for dotted, entry in entries:
            if dotted not in KEYS:
                if isinstance(entry, dict):
                    table = closest(dotted, tables)
                    raise ConfigError(
                        f"{path}: {dotted}: unknown table (found a table); the closest is {table},"
                        f" allowed are keys and {', '.join(tables)}"
                    )
                near = nearest(dotted)
                found = (
                    MASK if near.name in SECRETS or _SECRET.search(dotted) else masked(spell(entry))
                )
                raise ConfigError(
                    f"{path}: {dotted}: unknown key (found {found});"
                    f" the closest is {near.name}, allowed is {near.allowed}"
                )
            values[dotted] = KEYS[dotted].accept(entry, path)
    return values


def find_file(flag: str | None, environment: Mapping[str, str]) -> str | None:
    """The file to read: the flag's, the environment's, or the first default that exists."""
    named = flag or environment.get("ESNODE_CONFIG")
    if named:
        try:
            return str(Path(named).expanduser())
        except RuntimeError as error:  # of a user that there is not
            raise ConfigError(f"{named}: cannot be read: {error}") from None
    for path in FILES:
        try:
            if Path(path).exists():
                return path
        except OSError:
            # We may not enter its directory. That is an error of the system's file, which read_file
            # will name, and nothing to us if it is only the directory we were started in.
            if Path(path).is_absolute():
                return path
    return None


def load(arguments: Arguments, environment: Mapping[str, str]) -> Settings:
    """Flags over environment over file over stand-ins over defaults. Raises ConfigError."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes = []
    path = find_file(arguments.config, environment)
    if path:
        values = read_file(path)
        origins = dict.fromkeys(values, path)
    variables = {key.variable: key for key in KEYS.values()}
    for variable, text in environment.items():
        key = variables.get(variable)
        if key is not None:
            values[key.name] = key.accept(key.parse(text), variable)
            origins[key.name] = variable
        elif variable.startswith("ESNODE_CLIENT_"):
            continue  # the commands' own, see client.py
        elif variable.startswith("ESNODE_") and variable != "ESNODE_CONFIG":
            # Not an error: Kubernetes injects variables named after every service.
            notes.append(
                f"{variable}: unknown variable; the closest is {closest(variable, variables)}"
            )
    values |= arguments.values
    origins |= {name: f"--{KEYS[name].flag}" for name in arguments.values}
    for name, variable in STAND_INS.items():
        text = environment.get(variable, "").strip()
        if name not in values and text.lower() not in IGNORED:
            values[name] = KEYS[name].accept(text, variable)
            origins[name] = variable
    notes += [
        f"{origins[name]}: {name} has no effect in this version"
        for name in UNBUILT
        if values.get(name)
    ]
    top = {name: value for name, value in values.items() if "." not in name}
    table = {name.partition(".")[2]: value for name, value in values.items() if "." in name}
    config = Config(**top, orchestrator=Orchestrator(**table))
    return Settings(config, origins, path, tuple(notes), arguments)


def show(settings: Settings) -> str:
    """The effective configuration as TOML, each key with its origin; secrets are masked."""
    lines = []
    table = ""
    for name in KEYS:
        head, _, last = name.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        value = settings.value(name)
        origin = settings.origins.get(name, "default")
        if value is None:
            lines.append(f"# {last} is not set")
        else:
            shown = masked(spell(MASK if name in SECRETS else value))
            lines.append(f"{last} = {shown}  # {origin}")
    return "\n".join(lines) + "\n"


def flags_help() -> str:
    """The flags, one a line with default and meaning."""
    rows = []
    for key in KEYS.values():
        flag = f"--{key.flag}" if key.is_switch else f"--{key.flag} VALUE"
        default = "" if key.default is None else f" [{spell(key.default)}]"
        rows.append(f"  {flag:<36} {key.description}{default}")
    return "\n".join(rows) + "\n"


def reference() -> str:
    """docs/reference/config.md."""
    lines = [
        "# Configuration reference",
        "",
        "Generated by `make docs` from `esnode/config.py`; do not edit.",
        "",
        "A value comes from the first of: flag, environment variable, file, default. The file is"
        " `--config`, else `ESNODE_CONFIG`, else "
        + ", else ".join(f"`{path}`" for path in FILES)
        + ". A switch works as `--enable-gpu`, `--no-enable-gpu` and `--enable-gpu false`; a flag"
        ' of seconds takes `500ms`, `5s`, `1m30s` or a plain number. A variable after "else" counts'
        " only where nothing else sets the key; `void` or nothing in it is as if it was not set.",
        "",
        "A change of the file is taken up while the agent runs: see"
        " [configuring.md](../configuring.md). These keys count from the next start on: "
        + ", ".join(f"`{key.name}`" for key in KEYS.values() if key.at_start)
        + ".",
        "",
        "| key | flag | variable | default | allowed | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for key in KEYS.values():
        default = "" if key.default is None else f"`{spell(key.default)}`"
        cells = (
            f"`{key.name}`",
            f"`--{key.flag}`",
            f"`{key.variable}`"
            + (f", else `{other}`" if (other := STAND_INS.get(key.name)) else ""),
            default.replace("|", "\\|"),
            key.allowed,
            key.description,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
