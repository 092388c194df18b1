from .api import deprocess, features, preprocess, read_picture, write_picture
from .control import Canvas
from .errors import CvstyleError
from .graph import load_network
from .images import Picture
from .losses import Loss
from .objective import Objective
from .optimize import Stop
from .options import Compute, Options
from .run import Iterate, Job, Result, Run, embedded_network, plan, stylize, synthesize
from .style import StyleTargets, measure_styles

__all__ = [
    "Canvas", "Compute", "CvstyleError", "Iterate", "Job", "Loss", "Objective", "Options", "Picture", "Result", "Run",
    "Stop", "StyleTargets", "deprocess", "embedded_network", "features", "load_network", "measure_styles", "plan",
    "preprocess", "read_picture", "stylize", "synthesize", "write_picture",
]  # fmt: skip
__version__: str
