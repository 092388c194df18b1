"""Recognition of files by their first bytes, whatever their names end in."""

from __future__ import annotations

import os

from ..errors import ImageError
from ..style_file import MAGIC

HEAD = 1 << 12
"""The bytes at the start of a file that `refuse` looks at."""

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG = b"\x89PNG\r\n\x1a\n"
PNM = (b"P5", b"P6", b"P7", b"PF", b"Pf")
DAMAGED = "the picture is truncated or damaged ({}); get a fresh copy"
_SAVE = "save it as PNG, JPEG or TIFF"
_DEVELOP = "export it as a 16-bit TIFF or a JPEG"
_TONES = "its light has no white; adjust the tones in a picture program and save it as a 16-bit TIFF or PNG"

# (offset, bytes) → what the file is, and the way out
_KINDS = {
    (8, b"CR"): ("II*\0", "a camera raw file (Canon CR2)", _DEVELOP),
    (6, b"HEAPCCDR"): ("", "a camera raw file (Canon CRW)", _DEVELOP),
    (0, b"IIRO"): ("", "a camera raw file (Olympus ORF)", _DEVELOP),
    (0, b"IIRS"): ("", "a camera raw file (Olympus ORF)", _DEVELOP),
    (0, b"MMOR"): ("", "a camera raw file (Olympus ORF)", _DEVELOP),
    (0, b"IIU\0"): ("", "a camera raw file (Panasonic RW2)", _DEVELOP),
    (0, b"FUJIFILMCCD-RAW"): ("", "a camera raw file (Fujifilm RAF)", _DEVELOP),
    (0, b"FOVb"): ("", "a camera raw file (Sigma X3F)", _DEVELOP),
    (0, b"\0MRM"): ("", "a camera raw file (Minolta MRW)", _DEVELOP),
    (0, b"ARRI"): ("", "a camera raw file (ARRI)", _DEVELOP),
    (8, b"IIII"): ("II", "a camera raw file (Phase One IIQ)", _DEVELOP),
    (4, b"ftypcrx "): ("", "a camera raw file (Canon CR3)", _DEVELOP),
    (0, b"\xff\x0a"): ("", "a JPEG XL picture", _SAVE),
    (0, b"\0\0\0\x0cJXL "): ("", "a JPEG XL picture", _SAVE),
    (0, b"II\xbc\x01"): ("", "a JPEG XR picture", _SAVE),
    (0, b"gimp xcf"): ("", "a project of GIMP (XCF)", "export it there as PNG or TIFF"),
    (0, b"AT&TFORM"): ("", "a DjVu document", "save the page as PNG or TIFF"),
    (0, b"BPG\xfb"): ("", "a BPG picture", _SAVE),
    (0, b"FLIF"): ("", "a FLIF picture", _SAVE),
    (0, b"\x76\x2f\x31\x01"): ("", "an OpenEXR picture", _TONES),
    (0, b"#?RADIANCE"): ("", "a high-dynamic-range picture (Radiance HDR)", _TONES),
    (0, b"#?RGBE"): ("", "a high-dynamic-range picture (Radiance HDR)", _TONES),
    (0, b"SIMPLE  ="): ("", "a FITS file of measurements", "adjust the tones and save it as a 16-bit TIFF or PNG"),
    (128, b"DICM"): ("", "a medical picture (DICOM)", "export it as PNG or TIFF"),
    (0, MAGIC): ("", "a saved style of cvstyle", "give its file as --style, or a picture here"),
    (0, b"\x89HDF"): ("", "an HDF5 file", "export the picture as PNG or TIFF"),
    (0, b"\x93NUMPY"): ("", "a NumPy array", "load it in Python and give it to cvstyle.stylize"),
    (0, b"%PDF"): ("", "a PDF document", "save the page as PNG or TIFF"),
    (0, b"%!PS"): ("", "a PostScript document (EPS)", "save the page as PNG or TIFF"),
    (0, b"\xc5\xd0\xd3\xc6"): ("", "a PostScript document (EPS)", "save the page as PNG or TIFF"),
    (0, b"\xd7\xcd\xc6\x9a"): ("", "a Windows metafile (WMF)", _SAVE),
    (40, b" EMF"): ("\1\0\0\0", "a Windows metafile (EMF)", _SAVE),
    (8, b"CDR"): ("RIFF", "a CorelDRAW drawing", _SAVE),
    (8, b"AVI "): ("RIFF", "a video (AVI)", "save one of its frames as PNG"),
    (8, b"WAVE"): ("RIFF", "a sound file (WAV)", "give a picture"),
    (0, b"\x1a\x45\xdf\xa3"): ("", "a video (Matroska or WebM)", "save one of its frames as PNG"),
    (0, b"\0\0\x01\xba"): ("", "a video (MPEG)", "save one of its frames as PNG"),
    (0, b"\0\0\x01\xb3"): ("", "a video (MPEG)", "save one of its frames as PNG"),
    (0, b"FLV\x01"): ("", "a video (Flash)", "save one of its frames as PNG"),
    (4, b"moov"): ("", "a video (QuickTime)", "save one of its frames as PNG"),
    (4, b"mdat"): ("", "a video (QuickTime)", "save one of its frames as PNG"),
    (0, b"PK\x03\x04"): ("", "a zip archive, or a document made of one", "unpack it, or export a picture from it"),
    (0, b"Rar!"): ("", "an archive (RAR)", "unpack it and give a picture in it"),
    (0, b"7z\xbc\xaf"): ("", "an archive (7-Zip)", "unpack it and give a picture in it"),
    (0, b"\x1f\x8b"): ("", "compressed by gzip", "unpack it with gunzip"),
    (0, b"BZh"): ("", "compressed by bzip2", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ"): ("", "compressed by xz", "unpack it with unxz"),
    (0, b"\0\x05\x16\x07"): ("", "a side file of macOS", "give the file whose name lacks the ._"),
    (0, b"L\0\0\0\x01\x14\x02\0"): ("", "a Windows shortcut", "give the picture that it leads to"),
    (0, b"\xd0\xcf\x11\xe0"): ("", "a document of Microsoft Office, or a cache of thumbnails", "give a picture"),
    (0, b"bplist"): ("", "a property list of macOS", "give a picture"),
    (0, b"Obj\x01"): ("", "a data file", "give a picture"),
    (0, b"\x7fELF"): ("", "a program", "give a picture"),
    (0, b"MZ"): ("", "a program", "give a picture"),
}  # fmt: skip
_TEXTS = {
    b"<svg": ("a vector drawing (SVG)", "save it as PNG at the size that you need"),
    b"<!doctype html": ("a web page, not the picture on it", "download the picture itself"),
    b"<html": ("a web page, not the picture on it", "download the picture itself"),
    b"<head": ("a web page, not the picture on it", "download the picture itself"),
    b"<script": ("a web page, not the picture on it", "download the picture itself"),
    b"version https://git-lfs": ("a Git LFS pointer, not the picture itself", "get it with 'git lfs pull'"),
    b"[internetshortcut]": ("a link to a web page", "download the picture itself"),
    b"data:image/": ("a picture written as text (a data URL)", "decode it, or save it from a browser"),
    b"<?xml": ("an XML file", "give a picture"),
    b"{": ("a text file (JSON)", "give a picture"),
}  # fmt: skip
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"heif"}
_AVIF = {b"avif", b"avis"}


def heif_kind(head: bytes) -> str:
    """The kind of a picture in a HEIF container, "HEIC" or "AVIF", or ""."""
    if head[4:8] != b"ftyp":
        return ""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}
    if head[8:12] in _AVIF or (head[8:12] in (b"mif1", b"msf1", b"miaf") and brands & _AVIF):
        return "AVIF"
    return "HEIC" if brands & _HEIF else ""


def refuse(name: str, head: bytes) -> None:
    """Raises ImageError for a file that is empty or of a known kind other than a picture with pixels to be used."""
    if not head:
        raise ImageError(f"{name}: the file is empty; get a fresh copy")
    found = _other(head)
    if found:
        raise ImageError(f"{name}: this is {found[0]}; {found[1]}")


def unknown(name: str, head: bytes) -> ImageError:
    """The error for a file that no decoder knows."""
    if os.path.splitext(name)[1].lower() in (".part", ".crdownload", ".download", ".partial", ".tmp"):
        return ImageError(f"{name}: the download of this file has not ended; wait for it, or start it again")
    if not head.strip(b"\0"):
        return ImageError(f"{name}: the file holds only zeros, an unfinished download perhaps; get a fresh copy")
    if _is_text(head):
        return ImageError(f"{name}: this is a text file, not a picture; give a picture (PNG, JPEG, WebP, TIFF, ...)")
    return ImageError(
        f"{name}: this is no picture that cvstyle can read, or a damaged one; save it as PNG, JPEG or TIFF"
    )


def damaged(name: str, cause, message: str = DAMAGED) -> ImageError:
    """The error for a file that cannot be decoded."""
    cause = " ".join(str(cause).split())[:200] or type(cause).__name__
    return ImageError(f"{name}: {message.format(cause)}")


def _other(head):
    """(what it is, the way out), or None."""
    for (offset, magic), (start, *said) in _KINDS.items():
        if head[offset : offset + len(magic)] == magic and head.startswith(start.encode()):
            return said
    if head[4:8] == b"ftyp" and not heif_kind(head):
        return "a video (MP4 or QuickTime)", "save one of its frames as PNG"
    if head[:4] == b"8BPS" and head[4:6] == b"\0\x02":
        return "a large Photoshop document (PSB)", "save it as PSD or TIFF"
    depth = int.from_bytes(head[22:24], "big")
    if head[:4] == b"8BPS" and depth > 8:
        return f"a Photoshop document with {depth} bits per channel", "save it as TIFF"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for begin, said in _TEXTS.items():
        if text.startswith(begin) and _is_text(head):
            inner = begin in (b"<?xml", b"<!doctype html", b"<html") and b"<svg" in text and b"<html" not in text
            return _TEXTS[b"<svg"] if inner else _TEXTS[b"<html"] if b"<html" in text else said
    if not text.startswith((b"<!--", b"<!doctype svg")):
        return None
    if b"<html" in text or b"<!doctype html" in text:  # browsers save pages with a comment before them
        return _TEXTS[b"<html"]
    return _TEXTS[b"<svg"] if b"<svg" in text else None


def _is_text(head):
    """True for bytes that could be text in an 8-bit encoding."""
    return not any(byte < 32 and byte not in b"\t\r\n\f\x1b" for byte in head)
