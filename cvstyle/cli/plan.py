"""`cvstyle plan`: predicted memory and time of a run."""

from __future__ import annotations

from .run import Request, add_run_options
from .streams import only_errors, show


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "Predict memory and time of 'cvstyle run' with the same options, from the evaluation of two small pictures."
    )
    parser.set_defaults(execute=execute)
    add_run_options(parser)


def execute(args) -> int:
    """Run `cvstyle plan`; returns the exit status."""
    return predict(Request.of(args))


def predict(request: Request) -> int:
    """Print the plan of a request; returns the exit status."""
    request.find_pictures()
    with only_errors(request.reports.quiet):
        return _execute(request)


def _execute(request):
    from ..formatting import duration
    from ..run.planner import size_option

    plan, largest = request.job(request.devices()).plan()
    for line in request.all_remarks():
        request.say(line)
    rows = [("picture", "{1}×{0}".format(*plan.size))]
    tiles = "{2} windows of {1}×{0}".format(*plan.window, plan.windows) if plan.tile_size else "none"
    rows.append(("tiles", tiles))
    for need in plan.needs:
        free = f" of {need.free / 1e6:,.0f} MB" if need.free else ""
        rows.append((need.place, f"{need.size / 1e6:,.0f} MB{free}"))
    if len(plan.needs) > 1:
        rows.append(("total", f"{plan.memory / 1e6:,.0f} MB"))
    if plan.fits:
        rows.append(("iteration", f"{plan.seconds:.3g} s at the last scale"))
        rows.append(("run", duration(plan.total)))
    option = size_option(request.canvas is not None, plan.size, largest)
    rows.append(("largest", f"{option} would fit" + " with --tile-size auto" * plan.tileable))
    for name, text in rows:
        show(f"{name:<10}{text}")
    if not plan.fits:
        show("This does not fit.")
    return 0 if plan.fits else 1
