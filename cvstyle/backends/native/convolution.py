"""The common part of the engine's convolutions."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .. import reference


class Convolution(reference.Convolution):
    """Convolution whose filters the engine reads from the model file's memory."""

    @cached_property
    def _filters(self):
        """The filters, contiguous; the engine reads them at any alignment, so the file's are not copied."""
        return np.require(self._source, np.float32, ["C"])
