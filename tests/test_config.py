"""The configuration: its keys, where a value comes from, and what is refused in which words."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esnode import config
from esnode.config import KEYS, ConfigError, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[1]

#: Every key that the first release promises, and its default.
DEFAULTS: dict[str, Any] = {
    "listen_address": "0.0.0.0:9100",
    "listen_socket_mode": "0660",
    "web_config_file": None,
    "enable_metrics": True,
    "scrape_interval_seconds": 5,
    "scrape_max_age_seconds": 1,
    "scrape_wait_seconds": 0.05,
    "events_max_clients": 1024,
    "events_max_clients_per_address": 256,
    "mount_timeout_seconds": 2,
    "enable_cpu": True,
    "enable_memory": True,
    "enable_disk": True,
    "enable_network": True,
    "enable_gpu": True,
    "enable_power": True,
    "enable_gpu_amd": False,
    "enable_gpu_mig": False,
    "enable_gpu_events": False,
    "k8s_mode": False,
    "enable_app": False,
    "cpu_per_core_detail": False,
    "memory_detail": False,
    "infiniband_detail": False,
    "gpu_detail": False,
    "gpu_process_metrics": False,
    "cpu_frequency": "auto",
    "gpu_visible_devices": "all",
    "mig_config_devices": "",
    "nvml_library": "",
    "expected_gpus": None,
    "peak_window_seconds": 60,
    "gpu_release_seconds": 300,
    "node_power_envelope_watts": None,
    "degradation_window_seconds": 60,
    "degradation_disk_latency_seconds": 0.1,
    "degradation_disk_busy_percent": 95,
    "degradation_network_drops_percent": 0.1,
    "degradation_network_retrans_percent": 1,
    "degradation_swap_bytes_per_second": 1048576,
    "degradation_gpu_throttle_percent": 5,
    "degradation_gpu_ecc_errors": 1,
    "degradation_gpu_nvlink_errors": 10,
    "log_level": "info",
    "log_format": "text",
    "enable_local_tsdb": False,
    "local_tsdb_path": None,
    "local_tsdb_retention_hours": 48,
    "local_tsdb_max_disk_mb": 2048,
    "app_metrics_url": "http://127.0.0.1:8000/metrics",
    "managed_server": None,
    "managed_cluster_id": None,
    "managed_node_id": None,
    "managed_join_token": None,
    "managed_ca_file": None,
    "path_procfs": "/proc",
    "path_sysfs": "/sys",
    "path_rootfs": "/",
    "orchestrator.enabled": False,
    "orchestrator.allow_public": False,
    "orchestrator.token": None,
    "orchestrator.enable_zombie_reaper": True,
    "orchestrator.enable_turbo_mode": False,
    "orchestrator.enable_bin_packing": False,
    "orchestrator.enable_flash_preemption": False,
    "orchestrator.enable_dataset_prefetch": False,
    "orchestrator.enable_bandwidth_reserve": False,
    "orchestrator.enable_fs_cleanup": False,
}
#: Their defaults are the collectors' matter.
PATTERNS = {
    f"{subject}_{way}"
    for subject in ("disk_device", "disk_mount", "disk_fstype", "network_interface")
    for way in ("include", "exclude")
}
#: A value of each key that is not text, other than its default.
OTHERS: dict[str, Any] = {
    "scrape_interval_seconds": 7.5,
    "scrape_max_age_seconds": 0,
    "scrape_wait_seconds": 0.25,
    "events_max_clients": 0,
    "events_max_clients_per_address": 1,
    "mount_timeout_seconds": 3,
    "peak_window_seconds": 30,
    "gpu_release_seconds": 10,
    "expected_gpus": 8,
    "node_power_envelope_watts": 1200.5,
    "degradation_window_seconds": 30,
    "degradation_disk_latency_seconds": 0.5,
    "degradation_disk_busy_percent": 80,
    "degradation_network_drops_percent": 2,
    "degradation_network_retrans_percent": 5,
    "degradation_swap_bytes_per_second": 4096,
    "degradation_gpu_throttle_percent": 50,
    "degradation_gpu_ecc_errors": 3,
    "degradation_gpu_nvlink_errors": 20,
    "local_tsdb_retention_hours": 24,
    "local_tsdb_max_disk_mb": 100,
    "listen_address": "[::1]:9200",
    "listen_socket_mode": "0600",
    "log_level": "debug",
    "log_format": "json",
    "cpu_frequency": True,
}


def other(name: str) -> Any:
    """A valid value that is not the default of a key."""
    if name in OTHERS:
        return OTHERS[name]
    default = DEFAULTS.get(name)
    return not default if isinstance(default, bool) else "/some/words"


def flag_and_variable(name: str) -> tuple[str, str]:
    """The spellings that the issue's rules give."""
    flat = "enable_orchestrator" if name == "orchestrator.enabled" else name.replace(".", "_")
    return "--" + flat.removesuffix("_seconds").replace("_", "-"), "ESNODE_" + flat.upper()


def toml(name: str, value: Any) -> str:
    """A document with one key."""
    table, _, key = name.rpartition(".")
    return (f"[{table}]\n" if table else "") + f"{key} = {config.spell(value)}\n"


def load(*words: str, variables: Mapping[str, str] | None = None) -> Settings:
    return config.load(config.parse_arguments(words), variables or {})


def refused(*words: str, variables: Mapping[str, str] | None = None) -> str:
    """The message that refuses a configuration; one line."""
    with pytest.raises(ConfigError) as error:
        load(*words, variables=variables)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a file, which no default file is found from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "FILES", ("./esnode.toml", str(tmp_path / "etc.toml")))
    return tmp_path


def test_every_key_exists_with_its_default() -> None:
    assert set(KEYS) == set(DEFAULTS) | PATTERNS
    empty = load()
    assert {name: empty.value(name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) | PATTERNS))
def test_a_key_is_flag_variable_and_toml(name: str, nowhere: Path) -> None:
    flag, variable = flag_and_variable(name)
    value = other(name)
    text = value if isinstance(value, str) else config.spell(value)
    assert value != load().value(name)
    (nowhere / "a.toml").write_text(toml(name, value))
    for loaded, origin in (
        (load(flag, text), flag),
        (load(f"{flag}={text}"), flag),
        (load(variables={variable: text}), variable),
        (load("--config", "a.toml"), "a.toml"),
    ):
        assert loaded.value(name) == value
        assert loaded.origins == {name: origin}
        assert len(loaded.warnings) == (name in config.UNBUILT and value is True)


def test_flags_beat_variables_beat_the_file_beats_defaults(nowhere: Path) -> None:
    (nowhere / "esnode.toml").write_text(
        'log_level = "error"\nlog_format = "json"\nenable_cpu = false\n[orchestrator]\ntoken="f"\n'
    )
    loaded = load(
        *("--log-level", "trace"),
        variables={"ESNODE_LOG_LEVEL": "warn", "ESNODE_LOG_FORMAT": "text"},
    )
    assert (loaded.config.log_level, loaded.config.log_format) == ("trace", "text")
    assert loaded.config.enable_cpu is False
    assert loaded.config.enable_memory is True
    assert loaded.config.orchestrator.token == "f"
    assert loaded.origins["log_level"] == "--log-level"
    assert loaded.origins["log_format"] == "ESNODE_LOG_FORMAT"
    assert loaded.origins["enable_cpu"] == "./esnode.toml"
    assert "enable_memory" not in loaded.origins


STAND_INS = {
    "gpu_visible_devices": "NVIDIA_VISIBLE_DEVICES",
    "mig_config_devices": "NVIDIA_MIG_CONFIG_DEVICES",
}


@pytest.mark.parametrize(("name", "variable"), STAND_INS.items())
def test_nvidias_variables_count_where_nothing_else_sets_the_key(
    name: str, variable: str, nowhere: Path
) -> None:
    theirs = {variable: " GPU-8f2a,1 "}
    loaded = load(variables=theirs)
    assert loaded.value(name) == "GPU-8f2a,1"
    assert loaded.origins == {name: variable}
    assert f'{name} = "GPU-8f2a,1"  # {variable}\n' in config.show(loaded)
    assert not loaded.warnings

    flag, own = flag_and_variable(name)
    assert load(flag, "2", variables=theirs).origins == {name: flag}
    assert load(flag, "", variables=theirs).value(name) == ""
    assert load(variables={**theirs, own: "3"}).value(name) == "3"
    assert load(variables={**theirs, own: ""}).value(name) == ""
    (nowhere / "esnode.toml").write_text(f'{name} = "all"\n')
    loaded = load(variables=theirs)
    assert (loaded.value(name), loaded.origins) == ("all", {name: "./esnode.toml"})


@pytest.mark.parametrize("text", ["void", "VOID", " void ", "", " "])
def test_what_a_container_runtime_puts_in_nvidias_variables_filters_nothing(text: str) -> None:
    loaded = load(variables=dict.fromkeys(STAND_INS.values(), text))
    assert loaded.config == config.Config()
    assert not loaded.origins


def test_nvidias_none_is_none() -> None:
    loaded = load(variables={"NVIDIA_VISIBLE_DEVICES": "none"})
    assert loaded.config.gpu_visible_devices == "none"


def test_the_file_is_the_first_of_four(nowhere: Path) -> None:
    places = ["flag.toml", "variable.toml", "esnode.toml", "etc.toml"]
    for place in places:
        (nowhere / place).write_text(f'managed_node_id = "{place}"')
    words, variables = ["--config", "flag.toml"], {"ESNODE_CONFIG": "variable.toml"}
    assert load(*words, variables=variables).config.managed_node_id == "flag.toml"
    assert load(variables=variables).config.managed_node_id == "variable.toml"
    assert load().config.managed_node_id == "esnode.toml"
    (nowhere / "esnode.toml").unlink()
    assert load().config.managed_node_id == "etc.toml"
    (nowhere / "etc.toml").unlink()
    assert load().file is None


def test_the_default_files() -> None:
    # The fixture has replaced the attribute; what documents it has not changed.
    text = (REPOSITORY / "docs/reference/config.md").read_text()
    assert "else `./esnode.toml`, else `/etc/esnode/esnode.toml`" in text


def test_a_named_file_that_is_missing_is_an_error(nowhere: Path) -> None:
    (nowhere / "esnode.toml").touch()
    assert "nope.toml" in refused("--config", "nope.toml")
    assert "nope.toml" in refused(variables={"ESNODE_CONFIG": "nope.toml"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("500ms", 0.5), ("1m", 60), ("1h", 3600), ("2.5", 2.5), ("5", 5), ("1m30s", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert load("--scrape-interval", text).config.scrape_interval_seconds == seconds
    variables = {"ESNODE_SCRAPE_INTERVAL_SECONDS": text}
    assert load(variables=variables).config.scrape_interval_seconds == seconds


@pytest.mark.parametrize("text", ["", "s", "5 s", "5x", "-5s", "1s1", "five", "1m 30s", "--"])
def test_no_durations(text: str) -> None:
    message = refused(f"--scrape-interval={text}")
    assert "--scrape-interval" in message
    assert "0.1" in message
    assert "3600" in message


@pytest.mark.parametrize(
    ("words", "enabled"),
    [
        (["--enable-gpu", "true"], True),
        (["--enable-gpu", "false"], False),
        (["--enable-gpu=false"], False),
        (["--enable-gpu"], True),
        (["--no-enable-gpu"], False),
        (["--enable-gpu", "false", "--enable-gpu"], True),
        (["--enable-gpu", "--no-enable-gpu"], False),
        (["--no-enable-gpu", "--enable-gpu", "--log-level", "warn"], True),
    ],
)
def test_booleans_and_the_last_flag_wins(words: list[str], enabled: bool) -> None:
    loaded = load(*words, variables={"ESNODE_ENABLE_GPU": str(not enabled).lower()})
    assert loaded.config.enable_gpu is enabled


def test_flags_end_where_the_sub_command_begins() -> None:
    arguments = config.parse_arguments(["--scrape-interval=1", "--enable-gpu", "config", "show"])
    assert arguments.values == {"scrape_interval_seconds": 1, "enable_gpu": True}
    assert arguments.command == ("config", "show")


def test_a_partial_table_keeps_the_other_defaults(nowhere: Path) -> None:
    (nowhere / "esnode.toml").write_text("[orchestrator]\nenable_turbo_mode = true\n")
    orchestrator = load("--orchestrator-token", "t").config.orchestrator
    assert orchestrator == config.Orchestrator(enable_turbo_mode=True, token="t")


def test_a_tilde_is_the_home_directory(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(nowhere))
    (nowhere / "mine.toml").write_text('local_tsdb_path = "~/tsdb"\n')
    loaded = load("--config", "~/mine.toml", "--nvml-library", "~/nvml.so")
    assert loaded.config.local_tsdb_path == str(nowhere / "tsdb")
    assert loaded.config.nvml_library == str(nowhere / "nvml.so")


def test_an_unknown_variable_is_a_warning(nowhere: Path) -> None:
    # Kubernetes sets ESNODE_PORT and the like for a service of that name.
    (warning,) = load(variables={"ESNODE_LOG_LEVL": "info", "ESNODIUM": "x"}).warnings
    assert "ESNODE_LOG_LEVL" in warning
    assert "ESNODE_LOG_LEVEL" in warning


def test_a_switch_of_what_is_not_built_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "esnode.toml"
    file.write_text("enable_app = true\nenable_gpu_amd = false\n[orchestrator]\nenabled = true\n")
    assert load(f"--config={file}").warnings == (
        f"{file}: enable_app has no effect in this version",
        f"{file}: orchestrator.enabled has no effect in this version",
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("enable_gpuu = true", ["enable_gpuu", "enable_gpu,", "true or false"]),
        ("[orchestrator]\ntokn = 1", ["orchestrator.tokn", "orchestrator.token,", "text"]),
        ("[orchestrater]\ntoken = 1", ["orchestrater", "orchestrator"]),
        ("orchestrator = 1", ["orchestrator", "1", "a table"]),
        ("enable_gpu = 1", ["enable_gpu", "1", "true or false"]),
        ('enable_gpu = "true"', ["enable_gpu", '"true"', "true or false"]),
        ("log_level = 3", ["log_level", "3", "error", "trace"]),
        ('log_level = "loud"', ["log_level", '"loud"', "error", "trace"]),
        ('scrape_interval_seconds = "5s"', ["scrape_interval_seconds", '"5s"', "number"]),
        ("scrape_interval_seconds = true", ["scrape_interval_seconds", "true", "number"]),
        ("scrape_interval_seconds = 0.09", ["scrape_interval_seconds", "0.09", "0.1", "3600"]),
        ("scrape_interval_seconds = 3601", ["scrape_interval_seconds", "3601", "0.1", "3600"]),
        ("scrape_max_age_seconds = -1", ["scrape_max_age_seconds", "-1", "from 0"]),
        ("scrape_wait_seconds = nan", ["scrape_wait_seconds", "nan", "number"]),
        ("scrape_wait_seconds = -inf", ["scrape_wait_seconds", "-inf", "number"]),
        ("mount_timeout_seconds = 0", ["mount_timeout_seconds", "0", "above 0"]),
        ("node_power_envelope_watts = inf", ["node_power_envelope_watts", "inf", "number"]),
        ("expected_gpus = 1.5", ["expected_gpus", "1.5", "whole number"]),
        ("local_tsdb_retention_hours = 0", ["local_tsdb_retention_hours", "0", "from 1"]),
        ('cpu_frequency = "on"', ["cpu_frequency", '"on"', "auto"]),
        ("path_procfs = []", ["path_procfs", "an array", "text"]),
        ("expected_gpus = 8.0", ["expected_gpus", "8.0", "a whole number"]),
        ("enable_orchestrator = true", ["enable_orchestrator", "orchestrator.enabled"]),
        ("path_procfs = 1979-05-27", ["path_procfs", "date", "text"]),
        ('disk_mount_exclude = "("', ["disk_mount_exclude", '"("', "regular expression"]),
        ('listen_address = "0.0.0.0"', ["listen_address", '"0.0.0.0"', "9100"]),
        ('listen_address = "::1:9100"', ["listen_address", '"::1:9100"', "[::]:9100"]),
        ('listen_address = "a:0"', ["listen_address", '"a:0"', "65535"]),
        ('listen_address = "a:65536"', ["listen_address", '"a:65536"', "65535"]),
        ('listen_address = "a b:1"', ["listen_address", '"a b:1"', "65535"]),
        ('listen_address = "unix:agent.sock"', ["listen_address", "unix:/run/esnode/agent.sock"]),
        (f'listen_address = "unix:/{"a" * 107}"', ["listen_address", "107 bytes"]),
        ('listen_socket_mode = "0990"', ["listen_socket_mode", '"0990"', "0660"]),
        ("listen_socket_mode = 0o660", ["listen_socket_mode", "432", "0660"]),
        ("enable_gpu", ["TOML"]),
        ("enable_gpu = true\nenable_gpu = true", ["TOML"]),
        ("x = [", ["TOML"]),
    ],
)
def test_a_refusal_names_file_key_finding_and_what_is_allowed(
    document: str, words: list[str], nowhere: Path
) -> None:
    (nowhere / "bad.toml").write_text(document)
    message = refused("--config", "bad.toml")
    assert [word for word in ("bad.toml", *words) if word not in message] == [], message


#: Documents that went wrong before, or would in a plainer reader: none may end in a traceback.
TRAPS = [
    b"\xff\xfe",
    b'\xef\xbb\xbflog_level = "info"',
    b'"a\\nb" = 1',
    b'"\\u2028" = 1',
    b"[a." + b"b." * 5000 + b"c]",
    b"a = " + b"[" * 5000,
    b"expected_gpus = " + b"9" * 5000,
    b"expected_gpus = 0x" + b"f" * 5000,
    b"scrape_interval_seconds = 0x" + b"f" * 5000,
    b"unknown = 0x" + b"f" * 5000,
    b"peak_window_seconds = 1e999",
    b'path_procfs = "~nobody-of-this-name/proc"',
    b'path_procfs = "a\\u0000b"',
    b'network_interface_include = "a{99999999999}"',
    b'network_interface_include = "' + b"(" * 5000 + b")" * 5000 + b'"',
    b'network_interface_include = "' + b"\\\\" * 4001 + b'"',
]


@pytest.mark.parametrize("document", TRAPS)
def test_an_odd_document_is_refused_in_one_line(document: bytes, nowhere: Path) -> None:
    (nowhere / "odd.toml").write_bytes(document)
    message = refused("--config", "odd.toml")
    assert message.startswith("odd.toml: ")


def test_a_pattern_that_python_warns_of_is_no_second_line(nowhere: Path) -> None:
    (nowhere / "esnode.toml").write_text('disk_mount_include = "[[a]"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load()


def test_a_file_that_cannot_be_read(nowhere: Path) -> None:
    (nowhere / "loop.toml").symlink_to("loop.toml")
    (nowhere / "secret.toml").touch(0)
    (nowhere / "directory.toml").mkdir()
    unreadable = ["loop.toml", "directory.toml", *(["secret.toml"] if os.geteuid() else [])]
    for name in unreadable:
        message = refused("--config", name)
        assert name in message
        assert "cannot be read" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--enable-gpuu"], ["--enable-gpuu", "--enable-gpu"]),
        (["--no-scrape-interval"], ["--no-scrape-interval", "--scrape-interval"]),
        (["--scrape-interval-seconds", "5"], ["--scrape-interval-seconds", "--scrape-interval"]),
        (["--once=1"], ["--once"]),
        (["-x"], ["-x"]),
        (["--"], ["--"]),
        (["--log-level"], ["--log-level", "missing", "error", "trace"]),
        (["--config"], ["--config", "missing"]),
        (["--enable-gpu=maybe"], ["--enable-gpu", '"maybe"', "true or false"]),
        (["--scrape-interval", "nan"], ["--scrape-interval", "nan", "0.1"]),
        (["--scrape-interval", "inf"], ["--scrape-interval", "inf", "0.1"]),
        (["--expected-gpus", "1.0"], ["--expected-gpus", "1.0", "whole number"]),
        (["--expected-gpus", "9" * 5000], ["--expected-gpus", "whole number"]),
        (["--listen-address", "\udcff:1"], ["--listen-address", "65535"]),
        (["--log-level", "a\nb"], ["--log-level", "error", "trace"]),
        (["--enable\ngpu"], ["the closest is --enable-gpu"]),
        (["--disk-mount-include", "("], ["--disk-mount-include", "regular expression"]),
        (["--path-procfs", "~nobody-of-this-name/x"], ["--path-procfs"]),
    ],
)
def test_a_command_line_that_is_refused(words: list[str], expected: list[str]) -> None:
    message = refused(*words)
    assert [word for word in expected if word not in message] == [], message


def test_a_variable_that_is_refused_is_named() -> None:
    message = refused(variables={"ESNODE_SCRAPE_INTERVAL_SECONDS": "0"})
    assert message.startswith("ESNODE_SCRAPE_INTERVAL_SECONDS: scrape_interval_seconds: found 0")


SECRET = "hunter2"


@pytest.mark.parametrize(
    "document",
    [
        f'managed_join_token = ["{SECRET}"]',
        f'managed_join_token = "{SECRET}',
        f'managed_join_tokens = "{SECRET}"',
        f'[orchestrator]\ntoken = {{ "{SECRET}" = "{SECRET}" }}',
        f'[orchestrator]\ntoken_file = "{SECRET}"',
        f'[orchestrator]\nauth_token = "{SECRET}"',
        f'orchestrator_token = "{SECRET}"',
        f'token = "{SECRET}"',
        f'app_metrics_ulr = "http://user:{SECRET}@host/"',
        f'log_level = "http://user:{SECRET}@host/"',
        f'log_format = "http://host/?Token={SECRET}"',
    ],
)
def test_a_secret_is_not_in_a_refusal_of_a_file(document: str, nowhere: Path) -> None:
    (nowhere / "bad.toml").write_text(document)
    assert SECRET not in refused("--config", "bad.toml")


@pytest.mark.parametrize(
    "words",
    [
        [f"--managed-join-tokn={SECRET}"],
        ["--managed-join-tokn", SECRET],
        [f"--orchestrator-tokens={SECRET}"],
        [f"--no-orchestrator-token={SECRET}"],
    ],
)
def test_a_secret_is_not_in_a_refusal_of_flags(words: list[str]) -> None:
    assert SECRET not in refused(*words)


def test_secrets_are_masked_where_the_configuration_is_shown(nowhere: Path) -> None:
    (nowhere / "esnode.toml").write_text(f'[orchestrator]\ntoken = "{SECRET}-file"\n')
    loaded = load(variables={"ESNODE_MANAGED_JOIN_TOKEN": f"{SECRET}-variable"})
    assert loaded.config.orchestrator.token == f"{SECRET}-file"
    shown = config.show(loaded)
    assert SECRET not in shown
    assert "ESNODE_MANAGED_JOIN_TOKEN" in shown
    assert "./esnode.toml" in shown


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host:8000/metrics",
        f"http://{SECRET}@host/metrics",
        f"http://user:half/{SECRET}@host/metrics",
        f"http://user:half@{SECRET}@host/metrics",
        f"http://host/metrics?api_key={SECRET}",
        f"http://host/metrics?a=b&TOKEN={SECRET}",
    ],
)
def test_credentials_in_a_url_are_masked_and_the_rest_is_not(url: str) -> None:
    shown = config.show(load("--app-metrics-url", url))
    assert SECRET not in shown
    assert "host" in shown


def test_a_unix_socket_is_an_address() -> None:
    assert config.parse_address("unix:/run/a.sock") == ("/run/a.sock", 0)


def values() -> Iterator[st.SearchStrategy[tuple[str, Any]]]:
    """A valid value for each key that is not text, and text for the others."""
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0~"))
    for name, key in KEYS.items():
        if name in OTHERS:
            value: st.SearchStrategy[Any] = st.just(OTHERS[name])
        elif isinstance(key.default, bool):
            value = st.booleans()
        elif key.is_pattern:
            value = st.sampled_from(["", "^a$", r"\\", '"', "é\t"])
        elif key.is_path:
            value = words.map(lambda word: "/" + word.replace("/", ""))
        else:
            value = words
        yield st.tuples(st.just(name), value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(list(values())), unique_by=lambda pair: pair[0]))
def test_what_is_shown_gives_the_same_configuration_when_fed_back(
    pairs: list[tuple[str, Any]],
) -> None:
    chosen = {name: value for name, value in pairs if name not in config.SECRETS}
    loaded = config.load(config.Arguments(chosen, None, frozenset(), ()), {})
    shown = config.show(loaded)
    Path("shown.toml").write_text(shown)
    assert load("--config", "shown.toml").config == loaded.config
    assert tomllib.loads(shown)["enable_gpu"] is loaded.config.enable_gpu


NAMES = st.one_of(st.sampled_from([*KEYS, "orchestrator"]), st.text(max_size=5))
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(["true", "nan", "inf", "-inf", "0", "1e400", "1979-05-27", "07:32:00"]),
        st.integers().map(str),
        st.integers(1, 6000).map(lambda length: "0x" + "f" * length),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.text(st.characters(exclude_categories=["Cs"])).map(config.spell),
        st.sampled_from(['"("', '"~x/y"', '":1"', '"[a]:b"', "'\\d'", '"(?i"', '"a{9999999999}"']),
    ),
    lambda inner: st.lists(inner, max_size=2).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=3,
)
LINES = st.one_of(
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0].rpartition('.')[2]} = {pair[1]}"),
    st.tuples(NAMES, VALUES).map(lambda pair: f"{config.spell(pair[0])} = {pair[1]}"),
    NAMES.map(lambda name: f"[{name}]"),
    st.text(max_size=10),
)
DOCUMENTS = st.one_of(
    st.lists(LINES, max_size=4).map(lambda lines: "\n".join(lines).encode(errors="replace")),
    st.binary(max_size=40),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(DOCUMENTS)
def test_any_document_is_accepted_or_refused_in_one_line(document: bytes) -> None:
    Path("any.toml").write_bytes(document)
    try:
        load("--config", "any.toml")
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


WORDS = st.one_of(
    st.sampled_from([f"--{key.flag}" for key in KEYS.values()]),
    st.sampled_from([f"--no-{key.flag}" for key in KEYS.values()]),
    st.sampled_from(["--config", "--once", "--", "-", "--=", "true", "nan", "1e999", "5s", "~x/y"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=6),
    st.tuples(st.sampled_from([f"--{key.flag}" for key in KEYS.values()]), st.text(max_size=6)).map(
        "=".join
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(WORDS, max_size=5))
@example(["--scrape-wait", "nan"])
@example(["--listen-address", "\udcff"])
def test_any_command_line_is_accepted_or_refused_in_one_line(words: list[str]) -> None:
    try:
        load(*words)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


def test_the_reference_in_the_repository_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    reference = REPOSITORY / "docs/reference/config.md"
    assert reference.read_text() == config.reference(), "run `make docs`"
