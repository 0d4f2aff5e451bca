"""F1: what a screen shows, and the keys."""

from __future__ import annotations

from .cells import folded
from .page import BLANK, Page, Row, Scene, section

ABOUT = {
    "0": "Type the number of a screen and press Enter, or choose one with the arrows.",
    "1": "The node: load, memory, network, power, and why it counts as degraded. F9 shows sensors.",
    "2": "A line for each GPU. Enter or F9 shows all of one. THROTTLE is what slows it down; HEALTH"
    " what is wrong with it. F6 sorts by another column, F7 turns the order.",
    "3": "Traffic of each interface and InfiniBand port, and each mount with its disk. F9 shows"
    " latencies.",
    "4": "What the power is used for. W PER % is power by per cent of use. ENERGY is what the GPU"
    " has counted since its driver was loaded.",
    "5": "Sets of metrics. Enter turns one on or off in the configuration's file; a running agent"
    " takes that up within seconds. FROM says where a value is from: a flag or a variable counts"
    " more than the file.",
    "6": "The agent itself: what it costs, which collectors are not up and why, what has failed,"
    " and what it remembers of GPU errors and degradation. F9 shows all collectors, and whole"
    " messages and events.",
    "7": "Attaches the node to a controller, which is asked before anything counts as connected."
    " The token is not shown.",
    "8": "Who may use the API of the orchestrator.",
    "9": "All of one GPU. Left and Right show the next one. F9 shows serial number, VBIOS, driver,"
    " and whole events.",
}

KEYS = (
    ("F1 or ?", "this help, and back"),
    ("F3 or q", "leave the console"),
    ("F5 or r", "ask the agent now"),
    ("F6 or s, F7 or o", "sort GPUs, turn the order"),
    ("F9 or d", "detail"),
    ("F12 or b, Esc", "back"),
    ("0 to 9, Enter", "another screen; 0 is the menu, 90 leaves"),
    ("arrows, j, k", "choose a row, or scroll"),
    ("Page Up, Page Down", "scroll by screens; Home and End to the ends"),
    ("Enter or space", "open or turn what is chosen"),
    ("/", "only rows with a text; Enter keeps it, F12 drops it"),
    ("Tab", "next field"),
)

NOTES = (
    "A dash is what is not known; 0 is a reading. Trends begin when the console does, a cell for"
    " each tick of the agent. Times are UTC. Nothing here is measured by the console: all of it is"
    " the agent's /status."
)


def help_page(scene: Scene, title: str) -> Page:
    cells = scene.width - 2
    rows = [Row([(f" {line}", "")]) for line in folded(ABOUT[scene.view.screen], cells)]
    rows += [Row(BLANK), section("Keys")]
    rows += [Row([(f"   {key:<20}", "bold"), (what, "")]) for key, what in KEYS]
    rows += [Row(BLANK), *(Row([(f" {line}", "dim")]) for line in folded(NOTES, cells))]
    return Page("ESNHELP", f"Help: {title}", [BLANK], rows)
