"""`cvstyle devices`: the backends and devices of this machine, and why the unusable ones are not used."""

from __future__ import annotations

from .common import table


def add_arguments(parser):
    """Make the parser that of the verb."""
    parser.description = (
        "List the backends and their devices, best first, and say why one is not used. 'cvstyle run' takes the first "
        "that is a GPU, else the CPU; --backend and --device choose another."
    )
    parser.set_defaults(execute=execute)


def execute(args) -> int:
    """Carry out `cvstyle devices`; returns the exit status."""
    from .. import backends
    from ..backends.device import wgmma_verdict

    chosen = backends.best("auto")
    rows = [("backend", "device", "memory", "")]
    for name, problem, devices in backends.survey():
        default = chosen is not None and chosen.Backend.name == name
        for i, device in enumerate(devices):
            notes = ["the default"] if default and i == 0 else []
            if device.kind == "cpu":
                notes = ["a CPU, slower than the backends below: only where it is asked for"]
            if getattr(device, "wgmma", False) is None:
                verdicts = sorted(wgmma_verdict.known_verdicts(device).items())
                notes += [f"wgmma with {operand_format}: {verdict}" for operand_format, verdict in verdicts]
            rows.append((name, f"{i}: {device.name}", f"{device.memory / 1e9:.1f} GB", ", ".join(notes)))
        if problem:
            rows.append((name, "none", "", f"not used: {problem}"))
        elif not devices:
            rows.append((name, "CPU", "", "the default" if default else ""))
    print(table(rows))
    return 0
