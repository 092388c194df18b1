"""`cvstyle run`: stylise a picture."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence, Set
from dataclasses import dataclass

from .. import __version__, paths
from ..control import Canvas
from ..errors import ImageError, OptionError
from ..fields import Offload
from ..options import Compute, Files, Options, Reports
from . import inputs
from .common import add_options, note, say, settings_of, shown
from .effects import check_sizes, without_effect
from .streams import only_errors, show


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
    """The parsed options of a run. canvas: of a texture, which has no content; else None."""

    files: Files
    options: Options
    compute: Compute
    reports: Reports
    given: Set[str] = frozenset()
    remarks: Sequence[str] = ()
    canvas: Canvas | None = None

    @classmethod
    def of(cls, args) -> Request:
        """Create a request from parsed arguments. Raises OptionError for invalid options."""
        kinds = (Files, Options, Compute, Reports)
        words = {name: value for name, value in vars(args).items() if name in ("given", "remarks")}
        request = cls(*(settings_of(kind, args) for kind in kinds), **words)
        if not request.files.style:
            raise OptionError("--style names no file: --style painting.jpg")
        request.options.check(len(request.files.style))
        check_sizes(request.given, request.options)
        return request

    def find_pictures(self) -> None:
        """Resolve the names of the pictures (see `inputs`). Raises OptionError."""
        files = self.files
        if self.canvas is None:
            files.content = inputs.picture("--content", files.content)
        files.style = inputs.pictures("--style" if self.canvas is None else "texture", files.style)
        if self.options.init_image:
            self.options.init_image = inputs.picture("--init-image", self.options.init_image)
        if not files.output:
            raise OptionError(f"--output {shown(files.output)} names no file: --output {inputs.EXAMPLES['--output']}")
        options = self.options
        if options.mask:
            options.mask = inputs.pictures("--mask", options.mask)
        if options.style_mask:
            options.style_mask = inputs.pictures("--style-mask", options.style_mask)
        options.check_masks(len(files.style))
        named = [files.content, *files.style, options.init_image, *self.masks]
        if named.count(inputs.DEVICE) > 1:
            raise OptionError("standard input can be only one of the pictures; name files for the others")

    @property
    def masks(self) -> list[str]:
        """The files of masks."""
        return [*(self.options.mask or ()), *(self.options.style_mask or ())]

    def job(self, devices):
        """The job of the run."""
        from ..run import Job

        files = self.files
        content = files.content if self.canvas is None else self.canvas
        return Job(content, files.style, files.proto, files.model, devices=devices, options=self.options)

    @property
    def longest(self) -> int:
        """The longest side of the result, 0 if its size is that of a picture."""
        if self.canvas is None:
            return self.options.schedule(1)[-1][0]
        return max(self.canvas.size or (0,))

    def all_remarks(self) -> list[str]:
        """Sentences about options that surprise: repeated ones, and those without effect."""
        styles = len(self.files.style)
        return [*self.remarks, *without_effect(self.given, self.options, self.reports, styles)]

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
    return carry_out(Request.of(args), args.command_line)


def carry_out(request: Request, command_line: Sequence[str]) -> int:
    """Make the picture of a request; returns the exit status."""
    request.find_pictures()
    with only_errors(request.reports.quiet):
        return _execute(request, command_line)


def _execute(request, command_line):
    from .. import zoo
    from ..reports.output import Output, check_nothing_overwritten
    from ..reports.signals import handling

    files = request.files
    options = request.options
    reports = request.reports
    texts = {"Software": f"cvstyle {__version__}", "Command": shlex.join(["cvstyle", *command_line])}
    every = reports.save_interval(options.compat)
    output = Output(files.output, files.bits, texts, request.longest, every, files.strip, files.background)
    check_nothing_overwritten(
        {"output": files.output, "log": reports.log, "checkpoint": options.checkpoint},
        [files.content or None, *files.style, *request.masks, *zoo.files_of(files.proto, files.model)],
        options.init_image, numbers=every > 0,
    )  # fmt: skip
    with handling(finish_iteration=bool(options.checkpoint), say=request.say) as stop_requested:
        devices = request.devices()
        remarks = [*request.all_remarks(), *_remarks_on_devices(request, devices), *_remarks_on_resuming(request)]
        result = _stylize(request, devices, stop_requested, output, remarks)
        return _conclude(request, result, devices)


def _stylize(request, devices, stop_requested, output, remarks):
    """Run the job and write its picture."""
    from ..reports.reporter import Reporter, warnings_as_lines

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
            for line in (*remarks, *setup.remarks):
                request.say(line)

        show_plan = None if reports.quiet else lambda plan: note(str(plan))
        result = request.job(devices).run(after, show_plan, prepared)
        output.save_result(result)
    if remark := output.remark(result.picture):
        request.say(remark)
    return result


def _remarks_on_devices(request, devices):
    """Sentences about the engine that is not used, and about options without effect on these devices."""
    from ..backends import backend_class

    options = request.options
    if devices[0].name in ("numpy", "opencv") and request.compute.backend.lower() in ("auto", "cpu"):
        reason = backend_class("native").unavailable_because()
        if reason:
            yield f"backend {devices[0].name} is used; native, the fastest on a CPU, cannot be used: {reason}"
    if len(devices) == 1 and (options.split or options.multigpu_strategy):
        yield "--split and --multigpu-strategy have no effect with one device"
    if options.offload == Offload() and all(backend.on_host for backend in devices):
        yield "--offload has no effect on a CPU, where all is in host memory already"


def _remarks_on_resuming(request):
    options = request.options
    if not options.resume:
        return
    if not os.path.exists(options.checkpoint):
        yield f"{options.checkpoint} is not there yet; starting from the beginning"
    elif options.optimizer == "lbfgsb":
        yield "SciPy keeps lbfgsb's history to itself, so it starts anew from the checkpoint's picture"


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
        done = f"{output}: {result.iterations} iterations, loss {result.loss:.6g}, seed {result.seed}"
        lines = [done, *(f"{ops.device.name}: {ops.memory_used()}" for ops in devices if not ops.on_host)]
        for line in lines:
            if paths.is_standard_output(output):  # it has the picture
                note(line)
            else:
                show(line, f"; the picture is in {output}")
    return 0
