from .api import blend_styles, deprocess, features, match_colors, preprocess, read_picture, read_style, write_picture
from .control import Canvas
from .errors import CvstyleError
from .graph import load_network
from .images import Picture
from .losses import Loss
from .objective import Objective
from .optimize import Stop
from .options import Compute, Options
from .regions import StyleRegion
from .run import Iterate, Job, Result, Run, embedded_network, plan, save_style, stylize, synthesize
from .saved_style import SavedStyle
from .style import StyleTargets, measure_styles

__all__ = [
    "Canvas", "Compute", "CvstyleError", "Iterate", "Job", "Loss", "Objective", "Options", "Picture", "Result", "Run",
    "SavedStyle", "Stop", "StyleRegion", "StyleTargets", "blend_styles", "deprocess", "embedded_network", "features",
    "load_network", "match_colors", "measure_styles", "plan", "preprocess", "read_picture", "read_style",
    "save_style", "stylize", "synthesize", "write_picture",
]  # fmt: skip
__version__: str
