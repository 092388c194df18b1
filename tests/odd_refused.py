"""Files that are no pictures, or none that this program should read, often with a picture's ending."""

from __future__ import annotations

import struct
import zlib

from odd_others import bmp, box, netpbm
from odd_pictures import Refused, odd, ramp
from odd_png import SIGNATURE, chunk, header
from odd_tiff import LONG, Page, page, tiff

_RIFF = lambda kind: b"RIFF" + struct.pack("<I", 4) + kind + bytes(64)  # noqa: E731
_SVG = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- a comment -->\n<svg xmlns="http://www.w3.org/2000/svg" width="9"/>'
)
_NAMED = {
    # Camera raw by magic numbers.
    "camera.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(999), "raw|CR2"),
    "cr2_named.jpg": (b"II*\0\x10\0\0\0CR\2\0" + bytes(999), "raw|CR2"),
    "camera.cr3": (box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(999), "raw|CR3"),
    "camera.crw": (b"II\x1a\0\0\0HEAPCCDR" + bytes(999), "raw|CRW"),
    "camera.orf": (b"IIRO\x08\0\0\0" + bytes(999), "raw|ORF"),
    "camera_s.orf": (b"IIRS\x08\0\0\0" + bytes(999), "raw|ORF"),
    "camera.rw2": (b"IIU\0\x18\0\0\0" + bytes(999), "raw|RW2"),
    "camera.raf": (b"FUJIFILMCCD-RAW 0201" + bytes(999), "raw|RAF"),
    "camera.x3f": (b"FOVb" + bytes(999), "raw|X3F"),
    "camera.mrw": (b"\0MRM" + bytes(999), "raw|MRW"),
    "raf_named.png": (b"FUJIFILMCCD-RAW 0201" + bytes(999), "raw|RAF"),
    # Drawings, documents, videos and newer pictures.
    "drawing.svg": (_SVG, "SVG"),
    "svg_named.png": (_SVG, "SVG"),
    "svg_with_bom.svg": (b"\xef\xbb\xbf\n  <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "svg_utf16.svg": ("\ufeff<svg xmlns='http://www.w3.org/2000/svg'/>".encode("utf-16-le"), "SVG|text|no picture"),
    "svg_gzipped.svgz": (b"\x1f\x8b\x08" + bytes(50), "SVG|gzip|compressed"),
    "document.pdf": (b"%PDF-1.7\n" + bytes(99), "PDF"),
    "pdf_named.jpg": (b"%PDF-1.7\n" + bytes(99), "PDF"),
    "illustrator.ai": (b"%PDF-1.5\n%\xe2\xe3\xcf\xd3" + bytes(99), "PDF"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "EPS|PostScript"),
    "eps_named.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "EPS|PostScript"),
    "dos.eps": (
        b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIII", 30, 60, 0, 0, 0, 0) + b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "EPS|PostScript",
    ),
    "drawing.ps": (b"%!PS\nshowpage\n", "PostScript|EPS"),
    "layers.xcf": (b"gimp xcf v011\0" + bytes(99), "XCF|GIMP"),
    "scan.djvu": (b"AT&TFORM\0\0\0\x20DJVU" + bytes(99), "DjVu"),
    "new.jxl": (b"\xff\x0a" + bytes(99), "JPEG XL"),
    "new_in_box.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
    "jxl_named.jpg": (b"\xff\x0a" + bytes(99), "JPEG XL"),
    "wide.jxr": (b"II\xbc\1\x20\0\0\0" + bytes(99), "JPEG XR|HD Photo|no picture"),
    "portable.bpg": (b"BPG\xfb" + bytes(99), "BPG|no picture"),
    "film.mp4": (box(b"ftyp", b"isom\0\0\2\0isomiso2") + bytes(99), "video"),
    "film.mov": (box(b"ftyp", b"qt  \0\0\0\0qt  ") + bytes(99), "video|QuickTime"),
    "live_photo.jpg": (box(b"ftyp", b"qt  \0\0\0\0qt  ") + bytes(99), "video|QuickTime"),
    "film.webm": (b"\x1a\x45\xdf\xa3" + bytes(99), "video|Matroska|WebM"),
    "film.avi": (_RIFF(b"AVI "), "video|AVI"),
    "sound.wav": (_RIFF(b"WAVE"), "sound|audio|WAV|no picture"),
    "film.mpg": (b"\0\0\1\xba" + bytes(99), "video|MPEG|no picture"),
    "stream.mpg": (b"\0\0\1\xb3\x02\x00\x18\x13" + bytes(99), "video|MPEG|no picture"),
    "metafile.wmf": (b"\xd7\xcd\xc6\x9a\0\0" + bytes(99), "WMF|metafile|Windows|no picture"),
    "metafile.emf": (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(99), "EMF|metafile|Windows|no picture"),
    "medical.dcm": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
    "stars.fits": (b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800), "FITS|damaged|no picture"),
    "archive.zip": (b"PK\3\4\x14\0\0\0" + bytes(99), "zip|ZIP"),
    "zip_named.jpg": (b"PK\3\4\x14\0\0\0" + bytes(99), "zip|ZIP"),
    "krita.kra": (b"PK\3\4\n\0\0\0\0\0" + bytes(16) + b"\x08\0\0\0mimetypeapplication/x-krita", "zip|ZIP|Krita"),
    "office.docx": (b"PK\3\4\x14\0\6\0" + bytes(99), "zip|ZIP|Word|Office"),
    "program.exe": (b"MZ\x90\0" + bytes(99), "no picture|program"),
    # Downloads that went wrong.
    "page.jpg": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "web page|HTML"),
    "page_old.png": (b"\r\n<HTML><BODY>Not found</BODY></HTML>", "web page|HTML"),
    "page_with_comment.jpg": (b"<!-- saved -->\n<!doctype html><html></html>", "web page|HTML"),
    "error.png": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML|text|web page"),
    "error_json.jpg": (b'{"message": "Not Found"}', "text|JSON|no picture"),
    "pointer.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n", "Git LFS|git lfs",
    ),
    "data_url.png": (b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==", "text|base64|no picture"),
    "base64.jpg": (b"/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAAEBAQ==", "text|base64|no picture"),
    "notes.jpg": (b"a shopping list: bread, cheese\n", "text|no picture"),
    "notes_utf8.jpg": ("Straße, naïve, 絵\n".encode(), "text|no picture"),
    "empty.png": (b"", "empty"),
    "empty.tif": (b"", "empty"),
    "one_byte.jpg": (b"\xff", "picture"),
    "zeros.jpg": (bytes(5000), "zeros|no picture|damaged"),
    "spaces.jpg": (b" \n\t" * 99, "text|no picture|empty"),
    "noise.jpg": (bytes((i * i * 7 + i) % 251 for i in range(5000)), "no picture"),
    "._resource_fork.jpg": (b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(99), "AppleDouble|resource|macOS|no picture"),
    "shortcut.jpg": (b"L\0\0\0\1\x14\2\0\0\0\0\0\xc0\0\0\0\0\0\0F" + bytes(99), "shortcut|no picture"),
    "internet_shortcut.jpg": (b"[InternetShortcut]\r\nURL=https://example.org\r\n", "shortcut|link|text|no picture"),
    "array.npy": (b"\x93NUMPY\1\0v\0{'descr': '<f4'}" + bytes(99), "NumPy|no picture"),
    "model.prototxt": (b'name: "net"\nlayer { type: "Input" }\n', "text|no picture"),
    "net.caffemodel": (b"\n\x0bVGG_ILSVRC_" + bytes(99), "no picture"),
}  # fmt: skip
for _name, (_data, _words) in _NAMED.items():
    odd(_name, _data, _words)(lambda data, words: (data, Refused(words)))

# A few bytes that promise more pixels than any memory holds.
_BOMB = "pixels|large|memory|damaged|truncated|size"


@odd("bomb.png", 8, "rgb")
@odd("bomb_grey.png", 1, "grey")
@odd("bomb_16.png", 16, "rgba")
def _(bits, colour):
    body = chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND")
    return SIGNATURE + header(200_000, 200_000, bits, colour) + body, Refused(_BOMB)


@odd("bomb.jpg")
def _():
    from odd_jpeg import jpeg

    data = jpeg(ramp(3, 4))
    where = data.index(b"\xff\xc0") + 5
    return data[:where] + struct.pack(">HH", 65500, 65500) + data[where + 4 :], Refused(_BOMB)


@odd("bomb.gif")
def _():
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(
        6
    ) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;", Refused(_BOMB)


@odd("bomb.bmp")
def _():
    return bmp(bytes(99), 24, 100_000, 100_000), Refused(_BOMB)


@odd("bomb_run_lengths.bmp")
def _():
    return bmp(b"\0\1", 8, 100_000, 100_000, bytes(1024), compression=1), Refused(_BOMB)


@odd("bomb.ppm")
def _():
    return netpbm(b"P6", ramp(3, 4), 255).replace(b"4 3", b"200000 200000"), Refused(_BOMB)


@odd("bomb.tif", 8)
@odd("bomb_16.tif", 16)
def _(bits):
    """One strip, deflated."""
    data = [zlib.compress(bytes(1 << 20))]
    return tiff(page(ramp(3, 4), bits, data=data, code=8, t256=(LONG, [200_000]), t257=(LONG, [200_000]))), Refused(
        _BOMB
    )


@odd("bomb_sparse.tif")
def _():
    parts = page(ramp(3, 4), 16, t256=(LONG, [200_000]), t257=(LONG, [200_000]))
    return tiff(Page({**parts.tags, 273: (LONG, [0]), 279: (LONG, [0])}, [])), Refused(_BOMB)


@odd("bomb.tga")
def _():
    return struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65535, 65535, 32, 8) + b"\xff" * 99, Refused(_BOMB)


@odd("bomb.psd")
def _():
    return b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 300_000, 300_000, 8, 3) + bytes(12) + b"\0\1" + bytes(99), Refused(
        _BOMB
    )


@odd("bomb.qoi")
def _():
    return b"qoif" + struct.pack(">IIBB", 2**31, 2**31, 4, 0) + bytes(99), Refused(_BOMB)
