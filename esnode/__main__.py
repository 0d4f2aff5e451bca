"""The command ``esnode-core``: the daemon, unless a sub-command follows the flags."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from . import __version__, config, logs

USAGE = """Usage: esnode-core [FLAGS] [COMMAND]

Without a command: collect, and serve metrics over HTTP.

  --once         print one page of metrics and exit
  --config PATH  read this TOML file
  --no-color     no colours in what commands print; so does NO_COLOR in the environment
  --version      print the version and exit
  --help         print this and exit

Commands:
  cli                      the full-screen console: the node, its GPUs, profiles, the agent
  status [--watch]         the node on one screen
  check                    whether the node is fit for work, as an exit code and one line
  events [--follow]        GPU errors and degradation: what happened, and what happens
  metrics [SET]            the agent's metrics: basic, full, gpu-only or power-only
  diagnostics              what can be read and what not, and how to mend it
  config show              the effective configuration, and where each value is from
  config check [FILE]      whether the configuration is valid, or that of a file
  config set KEY=VALUE...  change keys in the file; a running agent takes them up
  profiles                 the sets of metrics, whether they are on, and where that is from
  enable-metric-set SET    turn host, gpu, power, app or all on, in the file
  disable-metric-set SET   turn one off
  gpu release              tell the running agent to let go of the GPUs for a while
  gpu attach               tell it to take them again
  server connect           have a controller, ESNODE-Pulse, manage this node
  server status            which one does, the last contact, and the state
  server disconnect        make the node standalone again
  disconnect               the same
  tsdb ls                  the blocks of the local history
  tsdb stat                its bytes per sample, and the time it covers
  tsdb verify              whether it is damaged
  tsdb export FILE         a range of it as a file
  tsdb backfill            send a range of it to a server of time series
  completion SHELL         a script that lets bash, zsh or fish complete all this
  xid [CODE]               what an error code of the NVIDIA driver means; without CODE, all

Flags, each also a key of the file and a variable ESNODE_<KEY>:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    for descriptor in range(3):  # a closed one would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    try:
        code = run(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except config.ConfigError as error:
        print(f"esnode-core: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: nothing to flush at exit
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        sys.stdout = None
        print(f"esnode-core: {error}", file=sys.stderr)
        return 1
    return code


def leave(*_: object) -> None:
    """Ends the agent before it has begun; a second signal changes nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def run(words: Sequence[str]) -> int:
    """Does what the words say. Raises ConfigError, and OSError where it cannot write."""
    arguments = config.parse_arguments(words)
    if "help" in arguments.options:
        print(USAGE + config.flags_help(), end="")
        return 0
    if "version" in arguments.options:
        print(f"esnode-core {__version__}")
        return 0
    if arguments.command:
        from . import cli

        return cli.run(arguments)
    settings = config.load(arguments, os.environ)
    if "once" not in arguments.options:
        for number in (signal.SIGTERM, signal.SIGINT):  # until the event loop takes them
            signal.signal(number, leave)
        # A hangup until it is one that reloads, and what asks for the driver where there is none.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    logs.setup(settings.config.log_level, settings.config.log_format)
    from .agent import Agent

    agent = Agent(settings)
    if "once" in arguments.options:
        page = agent.once()
        if sys.stdout is not None:
            sys.stdout.buffer.write(page)
        return 0
    return agent.run()


if __name__ == "__main__":
    sys.exit(main())
