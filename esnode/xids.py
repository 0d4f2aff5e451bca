"""Xids, the error codes of NVIDIA's driver: what each means, and what to do about it.

The facts are those of NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors, for Ampere and
newer GPUs, and its archive for older ones); the words are ours. SXids, the codes of NVSwitches, are
not listed: their line in the kernel's log says whether they are fatal.
"""

from __future__ import annotations

from typing import NamedTuple

SUPPORT = "Run the vendor's diagnostics, and contact its support."
#: What to do, by a word for it.
ACTIONS = {
    "none": "Nothing.",
    "application": "Restart the application.",
    "debug": "Look for the bug in the application, with compute-sanitizer or cuda-gdb; restart it.",
    "reset": "Stop the work on the GPU and reset it.",
    "reboot": "Reboot the node.",
    "vm": "Restart the virtual machine.",
    "update": "Update the driver, or the software of the virtual GPU.",
    "mechanical": "Check cables and seating of the GPU, its power connectors above all.",
    "nvlink": "Stop the work on the GPU and reset it; look at `nvidia-smi nvlink --errorcounters`.",
    "recovery": "Do what the driver asks for (Xid 154): where that is a reset, reset the GPU.",
    "other": "Follow the Xid that came with it.",
    "support": SUPPORT,
}


class Xid(NamedTuple):
    """One code: its meaning, the word of its action, and what to do if it comes back."""

    meaning: str
    action: str
    again: str = ""


SOFTWARE = "Update driver and CUDA; report it to the vendor if that does not help."
LINK = "Check the link: cables, connectors, the device at its other end."


def _engines(name: str, first: int, codes: str) -> dict[int, Xid]:
    """Entries of engines that are numbered from ``first``, one code each."""
    return {
        int(code): Xid(f"Error of {name} {number}.", "application", SUPPORT)
        for number, code in enumerate(codes.split(), first)
    }


XIDS: dict[int, Xid] = {
    8: Xid("The GPU took too long for a piece of work.", "application", SUPPORT),
    11: Xid("The stream of commands for the GPU was damaged or invalid.", "debug"),
    13: Xid(
        "The graphics and compute engine raised an exception; as a rule the application used an"
        " address out of bounds or an illegal instruction.",
        "debug",
        SUPPORT,
    ),
    16: Xid("The display engine hung (GPUs before Ampere).", "support"),
    18: Xid("Bus mastering was off for the GPU (GPUs before Ampere).", "support"),
    19: Xid("Error of the display engine (GPUs before Ampere).", "support"),
    24: Xid("A semaphore of the GPU timed out (GPUs before Ampere).", "application", SUPPORT),
    25: Xid("The stream of commands for the GPU was illegal.", "debug"),
    26: Xid("The GPU's memory did not answer in time (GPUs before Ampere).", "support"),
    30: Xid("Access to a semaphore of the GPU failed (GPUs before Ampere).", "support"),
    31: Xid(
        "Page fault in the GPU's memory; as a rule the application used an illegal address.",
        "debug",
        SUPPORT,
    ),
    32: Xid(
        "The controller that fetches commands over PCIe found a damaged stream; often the quality"
        " of the PCIe link.",
        "application",
        "Check the GPU's PCIe link; run the vendor's diagnostics.",
    ),
    37: Xid("Error in the driver's firmware.", "none", SOFTWARE),
    38: Xid("A watchdog of the driver's firmware ran out.", "none", SUPPORT),
    **_engines("copy engine", 0, "39 40 41 70 71 72 75 76 77 85"),
    43: Xid(
        "The application hit a fault of its own and was stopped; the GPU is healthy.",
        "none",
        "Look for the bug in the application.",
    ),
    44: Xid("Fault of the graphics engine while it switched contexts.", "none", SUPPORT),
    45: Xid(
        "The driver removed an application's work from the GPU: it ended, was killed, or another"
        " error came before.",
        "none",
        "Look at the Xid before it. Alone and often: restart the fabric manager.",
    ),
    46: Xid("The GPU stopped processing.", "reset", SUPPORT),
    47: Xid("Error of video encoder 0 (GPUs before Ampere).", "application", SUPPORT),
    48: Xid(
        "ECC error that could not be corrected (two bits or more).",
        "reset",
        "Look at `nvidia-smi -q -d ECC,ROW_REMAPPER`; if the threshold of SRAM errors is exceeded"
        " or a row could not be remapped, have the GPU replaced.",
    ),
    54: Xid("Auxiliary power is not connected to the board.", "mechanical", SUPPORT),
    56: Xid("Error of the display engine (GPUs before Ampere).", "support"),
    57: Xid("Training of the memory interface failed (GPUs before Ampere).", "reset", SUPPORT),
    58: Xid("The memory interface is not stable (GPUs before Ampere).", "reset", SUPPORT),
    59: Xid("Error of the power management controller (GPUs before Ampere).", "reset", SUPPORT),
    60: Xid("Exception of the security or video processor.", "application", SOFTWARE),
    61: Xid("The power management controller gave a warning (breakpoint).", "reset", SUPPORT),
    62: Xid("The power management controller halted.", "reset", SUPPORT),
    63: Xid(
        "A page was retired, or a row of memory is set down for remapping after an ECC error.",
        "none",
        "The remapping takes place at the next reset. See esnode_gpu_remap_pending.",
    ),
    64: Xid(
        "A page could not be retired, or a row of memory not be remapped.",
        "reset",
        "Have the GPU replaced.",
    ),
    65: Xid("Error of video encoder 1 (GPUs before Ampere).", "application", SUPPORT),
    66: Xid("The driver's firmware reports an illegal access to a register.", "none", SOFTWARE),
    67: Xid("The driver's firmware reports an illegal access.", "none", SUPPORT),
    **_engines("video decoder", 0, "68 83 84 88 89 96 97 98"),
    69: Xid("The graphics engine was given an illegal command.", "debug"),
    73: Xid("Error of video encoder 2 (GPUs before Ampere).", "application", SUPPORT),
    74: Xid(
        "Error of an NVLink; its cause may be the link or the device at its other end.",
        "nvlink",
        LINK,
    ),
    78: Xid("A virtual GPU could not be started.", "update"),
    79: Xid(
        "The GPU has fallen off the bus: it does not answer over PCIe any more.",
        "reboot",
        "Check power, temperature and the PCIe slot; run the vendor's diagnostics.",
    ),
    80: Xid(
        "Data that was sent to the GPU arrived damaged.",
        "application",
        "Check the GPU's PCIe link; run the vendor's diagnostics.",
    ),
    81: Xid("Error of the VGA subsystem (GPUs before Ampere).", "support"),
    **_engines("JPEG decoder", 0, "82 99 100 101 102 103 104 105"),
    86: Xid("Error of optical flow engine 0.", "application", SUPPORT),
    90: Xid("Error of the L2 cache (GPUs before Ampere).", "support"),
    92: Xid("ECC errors of a single bit, which are corrected, are frequent.", "none", SUPPORT),
    93: Xid("The InfoROM's limit of write accesses was reached.", "none", SUPPORT),
    94: Xid(
        "Memory error that touched one application only.",
        "application",
        "Reset the GPU when it is free. A following Xid 45 belongs to it.",
    ),
    95: Xid(
        "Memory error that may have touched several applications.",
        "reset",
        "Run the vendor's diagnostics. A following Xid 45 belongs to it.",
    ),
    106: Xid("Test message of the management bus.", "none"),
    107: Xid("Silent test message of the management bus.", "none"),
    109: Xid("Switching contexts took too long.", "reset", SUPPORT),
    110: Xid(
        "Security fault; uncommon without a fault of the hardware.",
        "reset",
        "Take back recent changes of the hardware and power the node off and on.",
    ),
    111: Xid("Error of the display engine (bundle).", "support"),
    112: Xid("Error of the display engine (supervisor).", "support"),
    113: Xid("Training of a DisplayPort link failed.", "support"),
    114: Xid("The display engine ran out of data (underflow).", "support"),
    115: Xid("Error of the display engine (core channel).", "support"),
    116: Xid("Error of the display engine (window channel).", "support"),
    117: Xid("Error of the display engine (cursor channel).", "support"),
    118: Xid("Error of the display engine (pixel pipeline).", "support"),
    119: Xid(
        "The GPU's system processor (GSP) did not answer a call of the driver in time.",
        "reset",
        "Power the node off and on. " + SOFTWARE,
    ),
    120: Xid(
        "Error in what the GPU's system processor (GSP) runs.",
        "reset",
        "Power the node off and on. " + SOFTWARE,
    ),
    121: Xid(
        "Corrected errors on the link between CPU and GPU (NVLink-C2C); no work is affected.",
        "none",
        "Reset the GPU when it is free, so that the link is trained anew.",
    ),
    122: Xid("The GPU's flash memory could not be read.", "support"),
    123: Xid("The GPU's flash memory could not be written.", "support"),
    124: Xid("The GPU's flash memory could not be erased.", "support"),
    125: Xid("Error in the InfoROM's file system.", "support"),
    **_engines("copy engine", 10, "126 127 128 129 130 131 132 133 134 135"),
    136: Xid("Training of an NVLink failed.", "reset", LINK),
    137: Xid(
        "Fault of an access over NVLink to another GPU; as a rule the application used an illegal"
        " address.",
        "debug",
        SUPPORT,
    ),
    139: Xid("Error of optical flow engine 1.", "application", SUPPORT),
    140: Xid(
        "ECC error that could not be corrected, and kept the driver from retiring the memory.",
        "reset",
        SUPPORT,
    ),
    141: Xid("Error in CUDA's fast path.", "none", SUPPORT),
    142: Xid("Error of video encoder 3.", "support"),
    143: Xid("The GPU could not be initialised.", "reset", SUPPORT),
    144: Xid("Error of the NVLink unit SAW.", "recovery", SUPPORT),
    145: Xid("Error of the NVLink unit RLW.", "recovery", SUPPORT),
    146: Xid("Error of the NVLink unit TLW.", "recovery", SUPPORT),
    147: Xid("Error of the NVLink unit TREX.", "recovery", SUPPORT),
    148: Xid("Error of the NVLink unit NVLPW.", "recovery", SUPPORT),
    149: Xid(
        "Error of the NVLink unit NETIR, such as a link that went down.",
        "recovery",
        LINK,
    ),
    150: Xid("Error of the NVLink unit MSE.", "recovery", SUPPORT),
    151: Xid("A key of confidential computing could not be changed.", "vm", SUPPORT),
    152: Xid("Address fault of the deep learning accelerator (DLA).", "none", SUPPORT),
    153: Xid("The deep learning accelerator (DLA) took too long.", "none", SUPPORT),
    154: Xid(
        "The driver changed what it asks for to recover the GPU; the line names it, and so does"
        " esnode_gpu_recovery_action.",
        "other",
    ),
    155: Xid("An NVLink went down on purpose, or as software asked for.", "reset", SOFTWARE),
    156: Xid("A part of the GPU with errors will be retired at a reset.", "reset"),
    157: Xid(
        "A part of the GPU with errors could not be retired: no spare is left.", "none", SUPPORT
    ),
    158: Xid("The GPU ran into a fatal time limit.", "reset", SUPPORT),
    159: Xid(
        "Error of the coherent link between CPU and GPU (CHI).",
        "other",
        "Alone: " + SUPPORT[0].lower() + SUPPORT[1:],
    ),
    160: Xid("A memory channel with errors will be retired.", "none", SOFTWARE),
    161: Xid("A memory channel with errors could not be retired.", "none", SOFTWARE),
    162: Xid("The circuit that smooths the GPU's power works again.", "none"),
    163: Xid(
        "The circuit that smooths the GPU's power was turned off.",
        "none",
        "Check temperatures; it comes back with a reset, or with the driver loaded anew.",
    ),
    164: Xid(
        "The circuit that smooths the GPU's power is nearly worn out.",
        "none",
        "Plan to replace the GPU where its power must stay smooth.",
    ),
    165: Xid(
        "The circuit that smooths the GPU's power is worn out.",
        "none",
        "Replace the GPU where its power must stay smooth.",
    ),
    171: Xid("Uncorrectable error of the DRAM; tells more about an Xid 48.", "other"),
    172: Xid("Uncorrectable error of the SRAM; tells more about an Xid 48.", "other"),
}

#: Those whose counters start at 0.
COMMON = (13, 31, 43, 45, 48, 63, 64, 74, 79, 94, 95, 119, 120)


def describe(code: int) -> str:
    """A code on a few lines. Raises KeyError for one that is not in the catalogue."""
    xid = XIDS[code]
    lines = [f"Xid {code}: {xid.meaning}", f"What to do: {ACTIONS[xid.action]}"]
    if xid.again:
        lines.append(f"If it comes back: {xid.again}")
    return "\n".join(lines) + "\n"


def listing() -> str:
    """All codes, one a line."""
    return "".join(f"{code:>4}  {xid.meaning}\n" for code, xid in sorted(XIDS.items()))


def reference() -> str:
    """docs/reference/xid.md."""
    lines = [
        "# Xids",
        "",
        "Generated by `make docs` from `esnode/xids.py`; do not edit.",
        "",
        "What the error codes of NVIDIA's driver mean that `esnode_gpu_xid_errors_total` counts,"
        " and what to do; `esnode-core xid CODE` prints one. The facts are those of"
        " [NVIDIA's catalogue](https://docs.nvidia.com/deploy/xid-errors/), which is more detailed"
        " and has the last word. Where a driver reports a recovery action"
        " (`esnode_gpu_recovery_action`), that comes first.",
        "",
        "| Xid | meaning | what to do | if it comes back |",
        "|---|---|---|---|",
    ]
    for code, xid in sorted(XIDS.items()):
        lines.append(f"| {code} | {xid.meaning} | {ACTIONS[xid.action]} | {xid.again} |")
    return "\n".join(lines) + "\n"
