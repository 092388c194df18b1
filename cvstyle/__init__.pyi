from .api import deprocess, preprocess, read_picture, write_picture
from .errors import CvstyleError
from .images import Picture
from .network import load_network
from .objective import Objective
from .transfer import Options, embedded_network, stylize

__all__ = [
    "CvstyleError", "Objective", "Options", "Picture", "deprocess", "embedded_network", "load_network", "preprocess",
    "read_picture", "stylize", "write_picture",
]  # fmt: skip
__version__: str
