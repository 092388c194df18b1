"""Operations that take elements from other places, on a device."""


class Gathering:
    """A part of `backend.Backend`."""

    def transpose(self, x, axes):
        raise NotImplementedError

    def top_k(self, x, axis, count):
        raise NotImplementedError

    def pool_positions(self, winner, shape, kernel, stride, pad):
        raise NotImplementedError

    def unpool(self, x, positions, size):
        raise NotImplementedError

    def unpool_backward(self, g, positions):
        raise NotImplementedError

    def resize(self, x, size):
        raise NotImplementedError

    def resize_backward(self, g, shape):
        raise NotImplementedError
