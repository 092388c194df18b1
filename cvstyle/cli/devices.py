"""`cvstyle devices`: the backends and devices of this machine, with the reason for each that is unusable."""

from __future__ import annotations

from .common import table
from .streams import show


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "List the backends and their devices, best first, with the reason for each that is unusable. 'cvstyle run' "
        "uses the first GPU, else the CPU; --backend and --device choose another."
    )
    parser.set_defaults(execute=execute)


def execute(args) -> int:
    """Carry out `cvstyle devices`; returns the exit status."""
    from .. import backends
    from ..backends.device import wgmma_verdict

    chosen = backends.pick("auto")
    rows = [("backend", "device", "memory", "")]
    for name, reason, devices in backends.list_backends():
        default = chosen is not None and chosen.name == name
        for i, device in enumerate(devices):
            notes = ["the default"] if default and i == 0 else []
            if device.kind == "cpu":
                notes = ["a CPU, slower than the backends below: used only on request"]
            if getattr(device, "wgmma", False) is None:
                verdicts = sorted(wgmma_verdict.known_verdicts(device).items())
                notes += [f"wgmma with {operand_format}: {verdict}" for operand_format, verdict in verdicts]
            rows.append((name, f"{i}: {device.name}", f"{device.memory / 1e9:.1f} GB", ", ".join(notes)))
        if reason:
            rows.append((name, "none", "", f"not used: {reason}"))
        elif not devices:
            rows.append((name, "CPU", "", "the default" if default else ""))
    show(table(rows))
    return 0
