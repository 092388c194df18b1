from .api import deprocess, features, match_colors, preprocess, read_picture, write_picture
from .errors import CvstyleError
from .graph import load_network
from .images import Picture
from .losses import Loss
from .objective import Objective
from .optimize import Stop
from .options import Compute, Options
from .run import Iterate, Job, Result, Run, embedded_network, plan, stylize
from .style import StyleTargets, measure_styles

__all__ = [
    "Compute", "CvstyleError", "Iterate", "Job", "Loss", "Objective", "Options", "Picture", "Result", "Run", "Stop",
    "StyleTargets", "deprocess", "embedded_network", "features", "load_network", "match_colors", "measure_styles",
    "plan", "preprocess", "read_picture", "stylize", "write_picture",
]  # fmt: skip
__version__: str
