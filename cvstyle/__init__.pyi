from .api import deprocess, preprocess, read_picture, write_picture
from .errors import CvstyleError
from .images import Picture
from .network import load_network
from .objective import Objective
from .options import Options
from .run import Job, Run, embedded_network, plan, stylize
from .style import StyleTargets, measure_styles

__all__ = [
    "CvstyleError", "Job", "Objective", "Options", "Picture", "Run", "StyleTargets", "deprocess", "embedded_network",
    "load_network", "measure_styles", "plan", "preprocess", "read_picture", "stylize", "write_picture",
]  # fmt: skip
__version__: str
