"""Files of models: where they can be had, and the digests by which they are known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WheelMember:
    """A file in a wheel. wheel: pip's requirement, "name==version"; path: of the file in the wheel."""

    wheel: str
    path: str

    def __str__(self):
        return f"{self.path} in the wheel {self.wheel} of a package index"


@dataclass(frozen=True)
class File:
    """A file of a model.

    digest: "md5:...", "sha1:..." or "sha256:...", of which the first digits are enough; "" if none is published.
    size_text: approximate size. member: location in a wheel; then size and digest are given.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    size_text: str = ""
    digest: str = ""
    member: WheelMember | None = None

    @property
    def algorithm(self) -> str:
        """The hash algorithm of the digest; SHA-256 if there is none."""
        return self.digest.partition(":")[0] or "sha256"

    def has_digest(self, digest: str) -> bool:
        """True for a digest, of the file's algorithm, that is the published one, or if none is published."""
        return digest.startswith(self.digest)

    @property
    def sources(self) -> list[str]:
        """Addresses, and a description of the wheel."""
        return [*self.urls, *([str(self.member)] if self.member else [])]
