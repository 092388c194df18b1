"""`cvstyle run`: stylise a picture."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

from .. import __version__, paths
from ..errors import ImageError, OptionError
from ..options import Compute, Files, Options, Reports
from .common import add_options, say, settings_of


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "Render the content picture in the style of one or more style pictures. All options of neural_style.lua are "
        "accepted, also in its spelling (-style_image ...)."
    )
    parser.set_defaults(execute=execute)
    add_run_options(parser)


def add_run_options(parser):
    """Add the options of a run."""
    add_options(parser, [Files, Options, Compute, Reports])


@dataclass
class Request:
    """The parsed options of a run."""

    files: Files
    options: Options
    compute: Compute
    reports: Reports

    @classmethod
    def of(cls, args) -> Request:
        """Create a request from parsed arguments. Raises OptionError for invalid options."""
        request = cls(*(settings_of(kind, args) for kind in (Files, Options, Compute, Reports)))
        if not request.files.style:
            raise OptionError("--style names no file")
        request.options.check(len(request.files.style))
        return request

    def say(self, line: str) -> None:
        """Print a message that is not an error."""
        if not self.reports.quiet:
            say(line)

    def devices(self) -> list:
        """The backends of the run."""
        from ..backends import threads

        threads.limit(self.compute.threads)  # also resets the limit of an earlier command line
        return self.compute.devices(self.options, self.say)


def execute(args) -> int:
    """Run `cvstyle run`; returns the exit status."""
    from .. import zoo
    from ..reports.output import Output, check_nothing_overwritten
    from ..reports.signals import handling

    request = Request.of(args)
    files = request.files
    options = request.options
    reports = request.reports
    texts = {"Software": f"cvstyle {__version__}", "Command": shlex.join(["cvstyle", *args.command_line])}
    every = reports.save_interval(options.compat)
    output = Output(files.output, files.bits, texts, options.schedule(1)[-1][0], every, files.strip, files.background)
    check_nothing_overwritten(
        {"output": files.output, "log": reports.log, "checkpoint": options.checkpoint},
        [files.content, *files.style, *zoo.files_of(files.proto, files.model)], options.init_image,
        numbers=every > 0,
    )  # fmt: skip
    devices = request.devices()
    if len(devices) == 1 and (options.split or options.multigpu_strategy):
        request.say("--split and --multigpu-strategy have no effect with one device")
    with handling(finish_iteration=bool(options.checkpoint), say=request.say) as stop_requested:
        if options.resume:
            _announce_resume(request)
        result = _stylize(request, devices, stop_requested, output)
        return _conclude(request, result, devices)


def _stylize(request, devices, stop_requested, output):
    """Run the job and write its picture."""
    from ..reports.reporter import Reporter, warnings_as_lines
    from ..run import Job

    files = request.files
    options = request.options
    reports = request.reports
    with Reporter(reports.print_iter, reports.quiet, reports.log) as report, warnings_as_lines(report.say):

        def after(iterate):
            report(iterate)
            if output.is_due(iterate):
                try:
                    output.save_iterate(iterate)
                except ImageError as error:  # the run continues: there may be space at its end
                    report.say(str(error))
            if stop_requested():
                raise KeyboardInterrupt

        def prepared(setup):
            content = setup.content
            iterations = setup.last_iteration(len(setup.sizes) - 1)
            output.begin(setup.seed, iterations, setup.sizes[-1], content.alpha is not None, len(content.icc or b""))
            for line in setup.remarks:
                request.say(line)

        job = Job(files.content, files.style, files.proto, files.model, devices=devices, options=options)
        show_plan = None if reports.quiet else lambda plan: print(plan, file=sys.stderr, flush=True)
        result = job.run(after, show_plan, prepared)
        output.save_result(result)
    if remark := output.remark(result.picture):
        request.say(remark)
    return result


def _announce_resume(request):
    options = request.options
    if not os.path.exists(options.checkpoint):
        request.say(f"{options.checkpoint} is not there yet; starting from the beginning")
    elif options.optimizer == "lbfgsb":
        request.say("SciPy keeps lbfgsb's history to itself, so it starts anew from the checkpoint's picture")


def _conclude(request, result, devices):
    """Print the outcome; returns the exit status."""
    output = request.files.output
    if result.stopped == "interrupted":
        resume = ""
        if result.checkpoint is not None:
            checkpoint = request.options.checkpoint
            resume = f", and {checkpoint} continues from iteration {result.checkpoint} with --resume"
        say(f"interrupted after {result.iterations} iterations; the picture so far is in {output}{resume}")
        return 130
    if result.stopped:
        say(f"{result.stopped}; the last good picture is in {output}")
        return 2
    if not request.reports.quiet:
        stream = sys.stderr if paths.is_standard_output(output) else sys.stdout
        print(f"{output}: {result.iterations} iterations, loss {result.loss:.6g}, seed {result.seed}", file=stream)
        for backend in devices:
            if not backend.on_host:
                print(f"{backend.device.name}: {backend.memory_used()}", file=stream)
    return 0
