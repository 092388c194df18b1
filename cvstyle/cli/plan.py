"""`cvstyle plan`: the memory and time that a run would need, without running it."""

from __future__ import annotations

from .run import Request, add_run_options


def add_arguments(parser):
    """Make the parser that of the verb."""
    parser.description = (
        "Takes the options of 'cvstyle run' and computes nothing but two small pictures, from which it predicts memory "
        "and time."
    )
    parser.set_defaults(execute=execute)
    add_run_options(parser)


def execute(args) -> int:
    """Carry out `cvstyle plan`; returns the exit status."""
    from ..formatting import duration
    from ..run import Job

    request = Request.of(args)
    files = request.files
    devices = request.devices()
    job = Job(files.content, files.style, files.proto, files.model, devices=devices, options=request.options)
    found, largest = job.plan()
    rows = [("picture", "{1}×{0}".format(*found.size))]
    tiles = "{2} windows of {1}×{0}".format(*found.window, found.windows) if found.tile_size else "none"
    rows.append(("tiles", tiles))
    for need in found.needs:
        free = f" of {need.free / 1e6:,.0f} MB" if need.free else ""
        rows.append((need.place, f"{need.size / 1e6:,.0f} MB{free}"))
    if len(found.needs) > 1:
        rows.append(("total", f"{found.memory / 1e6:,.0f} MB"))
    if found.fits:
        rows.append(("iteration", f"{found.seconds:.3g} s at the last scale"))
        rows.append(("run", duration(found.total)))
    rows.append(("largest", f"--image-size {largest} would fit with --tile-size auto"))
    for name, text in rows:
        print(f"{name:<10}{text}")
    if not found.fits:
        print("This does not fit.")
    return 0 if found.fits else 1
