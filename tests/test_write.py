"""Writing of pictures, checkpoints and logs: names, links, modes, refusals, other places, and metadata."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from pictures import random_pixels
from PIL import Image, TiffImagePlugin

import cvstyle
from cvstyle import checkpoint, images, paths
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, ImageError
from cvstyle.images import metadata, profiles
from cvstyle.images.picture import to_samples
from cvstyle.reports.log import Log
from cvstyle.reports.output import Output

RGB = np.zeros((2, 3, 3), np.float32)
ENDINGS = (".png", ".jpg", ".webp", ".tif")
unix = pytest.mark.skipif(os.name == "nt", reason="links, modes and pipes of Unix")
linux = pytest.mark.skipif(sys.platform != "linux", reason="devices and limits of Linux")
writer = importlib.import_module("cvstyle.images.write")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A run of the embedded network on a photograph with metadata, without its output."""
    photo = photograph(tmp_path_factory.mktemp("write") / "photo.jpg")
    options = "--image-size 32 --num-iterations 4 --seed 5 --backend numpy --threads 1 --quiet"
    return ["run", "--content", str(photo), "--style", str(photo), *options.split()]


def environment():
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))


# Names


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("letter", ["n", "ü", "画"])
@linux
def test_a_name_as_long_as_the_file_system_takes(tmp_path, ending, letter):
    room = 255 - len(ending)
    name = letter * (room // len(letter.encode()))
    path = tmp_path / (name + "n" * (room - len(name.encode())) + ending)
    assert len(os.fsencode(path.name)) == 255
    for _ in range(2):  # a new file, and one that is there
        images.check_writable(path)
        images.write(path, RGB)
    assert images.read(path).size == (2, 3) and os.listdir(tmp_path) == [path.name]
    longer = path.with_name(f"n{path.name}")
    for refuse in (images.check_writable, lambda path: images.write(path, RGB)):
        with pytest.raises(ImageError, match=r"the name is too long for the file system; choose a shorter one$"):
            refuse(longer)


@linux
def test_checkpoints_logs_and_caches_with_long_names(tmp_path):
    path = tmp_path / ("é" * 125 + ".npz")
    checkpoint.check_writable(str(path), resume=False)
    checkpoint.save(str(path), {"done": 1}, {"x": np.arange(3)})
    assert checkpoint.load(str(path))[1]["x"].tolist() == [0, 1, 2]
    Log(str(tmp_path / ("l" * 255)), print).close()
    assert paths.write(tmp_path / ("c" * 255), b"content")
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(CheckpointError, match="File name too long"):
        checkpoint.check_writable(str(tmp_path / ("é" * 126 + ".npz")), resume=False)


@linux
def test_a_path_as_long_as_the_system_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rest = 4095 - len("/a.png")
    folders = ["f" * 200] * (rest // 201)
    folders.append("f" * (rest - len("/".join(folders)) - 1))
    for folder in folders:
        os.mkdir(folder)
        os.chdir(folder)
    os.chdir(tmp_path)
    path = "/".join([*folders, "a.png"])
    assert len(path) == 4095
    images.check_writable(path)
    images.write(path, RGB)
    assert images.read(path).size == (2, 3)
    shutil.rmtree(folders[0])


@linux
def test_a_numbered_name_that_is_too_long_is_found_before_the_run(command, tmp_path, capsys):
    name = "n" * 250 + ".png"
    assert main([*command, "--output", str(tmp_path / name), "--save-iter", "2"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{name[:-4]}_2.png: the name is too long" in err
    assert os.listdir(tmp_path) == []
    assert main([*command, "--output", str(tmp_path / name)]) == 0 and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", [
    "-lead.png", ".hidden.png", " a b .PNG", "a.b.JPG", "~.tif", "a'b\"c.TIFF", "*?[x].webp", "%d%%.jpeg", "x.jfif",
    "x.jpe", "new\nline.png", "n" * 200 + ".Png",
])  # fmt: skip
@unix
def test_odd_names(tmp_path, name):
    images.check_writable(tmp_path / name)
    images.write(tmp_path / name, RGB)
    with Image.open(tmp_path / name) as image:
        assert image.size == (3, 2)
    assert os.listdir(tmp_path) == [name]


def test_names_without_a_known_ending(tmp_path):
    for name, reason in (
        (".png", "no ending"), ("out", "no ending"), ("", "is a folder"), ("absent/", "names no file to write; give"),
        ("out.", "cannot write '.' files; use .png"),
        ("a.gif", "use .png, .jpg, .webp or .tiff"), ("a.bmp", "use .png"), ("a.png ", "cannot write '.png ' files"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=reason):
            images.check_writable(os.path.join(tmp_path, name))
    assert not os.listdir(tmp_path)


# Links, modes, and folders that refuse


@unix
def test_links_are_followed(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    target = tmp_path / "deep" / "er" / "real.png"
    (tmp_path / "deep" / "two.png").symlink_to("er/real.png")
    (tmp_path / "one.png").symlink_to("deep/two.png")
    for height in (2, 5):  # the first time, the link has no target
        images.check_writable(tmp_path / "one.png")
        images.write(tmp_path / "one.png", np.zeros((height, 3, 3), np.float32))
        assert (tmp_path / "one.png").is_symlink() and (tmp_path / "deep" / "two.png").is_symlink()
        assert not target.is_symlink() and images.read(target).size == (height, 3)
    assert sorted(os.listdir(tmp_path)) == ["deep", "one.png"] and os.listdir(target.parent) == ["real.png"]


@unix
def test_links_of_checkpoints_and_logs_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("run.npz", "log.csv"):
        (tmp_path / name).symlink_to(f"far/{name}")
    for _ in range(2):
        checkpoint.check_writable(str(tmp_path / "run.npz"), resume=True)
        checkpoint.save(str(tmp_path / "run.npz"), {"done": 1}, {"x": np.arange(3)})
    Log(str(tmp_path / "log.csv"), print).close()
    assert all((tmp_path / name).is_symlink() for name in ("run.npz", "log.csv"))
    assert sorted(os.listdir(tmp_path / "far")) == ["log.csv", "run.npz"]


@unix
def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    with pytest.raises(ImageError, match=r"a\.png: it cannot be written: Too many levels of symbolic links"):
        images.check_writable(tmp_path / "a.png")
    with pytest.raises(CheckpointError, match="Too many levels"):
        checkpoint.check_writable(str(tmp_path / "a.png"), resume=False)
    with pytest.raises(ImageError, match=r"no folder|No such"):
        (tmp_path / "c.png").symlink_to("absent/c.png")
        images.check_writable(tmp_path / "c.png")


@unix
def test_new_files_follow_the_umask_and_old_ones_keep_their_mode(tmp_path):
    arrays = {"x": np.arange(3)}
    write = {
        "a.png": lambda path: images.write(path, RGB), "a.npz": lambda path: checkpoint.save(str(path), {}, arrays),
        "cache": lambda path: paths.write(path, b"x"), "a.csv": lambda path: Log(str(path), print).close(),
    }  # fmt: skip
    mask = os.umask(0o026)
    try:
        for name, function in write.items():
            function(tmp_path / name)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640, name
            (tmp_path / name).chmod(0o604)
            function(tmp_path / name)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o604, name
    finally:
        os.umask(mask)


@unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root changes owners")
def test_the_owner_of_a_file_is_kept(tmp_path):
    images.write(tmp_path / "a.png", RGB)
    os.chown(tmp_path / "a.png", 1234, 4321)
    images.write(tmp_path / "a.png", RGB)
    found = (tmp_path / "a.png").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_takes_no_file_but_the_one_that_is_there(tmp_path, monkeypatch, number):
    real = os.open

    def refuse(path, flags, *rest, **named):
        if flags & os.O_EXCL:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *rest, **named)

    images.write(tmp_path / "a.png", RGB)
    inode = (tmp_path / "a.png").stat().st_ino
    monkeypatch.setattr(os, "open", refuse)
    images.check_writable(tmp_path / "a.png")
    images.write(tmp_path / "a.png", np.zeros((5, 4, 3), np.float32))
    assert images.read(tmp_path / "a.png").size == (5, 4) and (tmp_path / "a.png").stat().st_ino == inode
    with pytest.raises(ImageError, match=os.strerror(number)):
        images.check_writable(tmp_path / "new.png")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.EXDEV])
def test_a_file_that_cannot_be_replaced_is_written_into(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.png").write_bytes(b"old" * 1000)
    monkeypatch.setattr(os, "replace", refuse)
    images.write(tmp_path / "a.png", np.zeros((5, 4, 3), np.float32))
    assert images.read(tmp_path / "a.png").size == (5, 4) and os.listdir(tmp_path) == ["a.png"]


def test_a_write_protected_picture_is_protected(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"mine")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match="Permission denied; choose another name or folder"):
        images.check_writable(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@unix
def test_a_pipe_gets_the_picture_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images.check_writable(tmp_path / "pipe.png")
    found = []
    thread = threading.Thread(target=lambda: found.append((tmp_path / "pipe.png").read_bytes()))
    thread.start()
    images.write(tmp_path / "pipe.png", RGB)
    thread.join()
    assert found == [images.png(images.Picture(RGB))] and stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


@linux
def test_devices_are_written_into_and_stay_devices():
    for name in ("/dev/null", "/dev/full"):
        images.check_writable(name)
    images.write("/dev/null", RGB)
    with pytest.raises(ImageError, match="/dev/full: it could not be written: No space left on device"):
        images.write("/dev/full", RGB)
    checkpoint.save("/dev/null", {}, {"x": np.arange(3)})
    assert all(stat.S_ISCHR(os.stat(name).st_mode) for name in ("/dev/null", "/dev/full"))


@linux
def test_a_log_to_standard_output(command, tmp_path, capfd):
    assert main([*command, "--output", str(tmp_path / "a.png"), "--log", "-"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("iteration,seconds,loss") and len(lines) == 5 and os.listdir(tmp_path) == ["a.png"]
    assert main([*command, "--output", "-", "--log", "/dev/stdout"]) == 2
    assert "the log and the output are one file" in capfd.readouterr().err
    assert main([*command, "--output", "/dev/null", "--log", "/dev/null"]) == 0


@linux
def test_a_terminal_shows_no_picture():
    ours, theirs = os.openpty()
    try:
        with pytest.raises(ImageError, match="a terminal shows no picture; redirect the output"):
            images.check_writable(f"/dev/fd/{theirs}")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("to", ["pipe", "file"])
@linux
def test_standard_output_gets_a_png_and_nothing_else(command, tmp_path, output, to):
    words = [sys.executable, "-m", "cvstyle", *command[:-1], "--output", output]  # not quiet
    with open(tmp_path / "out", "wb+") as file:
        stdout = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=environment())
        file.seek(0)
        data = done.stdout if to == "pipe" else file.read()
    assert done.returncode == 0 and b"seed 5" in done.stderr
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "PNG" and image.width == 32
    assert data.endswith(b"IEND\xaeB`\x82")
    words = [*words, "--save-iter", "2"]
    done = subprocess.run(words, capture_output=True, env=environment())
    assert done.returncode == 2 and b"--save-iter need a file's name" in done.stderr and not done.stdout


# Limits, room, and failures at the end


@pytest.mark.parametrize("ending, limit", [(".jpg", 65500), (".jpeg", 65500), (".webp", 16383), (".png", 1_000_000)])
def test_limits_of_size(tmp_path, ending, limit):
    path = tmp_path / f"a{ending}"
    for shape in ((1, limit, 3), (limit, 1, 3)):
        images.check_writable(path, 8, limit)
        images.write(path, np.zeros(shape, np.float32))
        with Image.open(path) as image:
            assert image.size == shape[1::-1]
            image.load()
    with pytest.raises(ImageError, match=rf"at most {limit} pixels wide and high; use \.tiff"):
        images.check_writable(path, 8, limit + 1)
    if ending != ".png":  # the encoder itself has this limit
        with pytest.raises((OSError, ValueError)):
            Image.new("RGB", (limit + 1, 1)).save(io.BytesIO(), {".webp": "WEBP"}.get(ending, "JPEG"))
    images.write(tmp_path / "a.tif", np.zeros((1, limit + 1, 3), np.float32))
    assert images.read(tmp_path / "a.tif").size == (1, limit + 1)


def test_a_tiff_of_four_gigabytes_has_long_offsets(tmp_path, monkeypatch):
    for limit, magic in ((9 * 6 * 3 - 1, 43), (9 * 6 * 3, 42)):
        monkeypatch.setattr(writer, "_BIG_TIFF", limit)
        rgb = random_pixels(9, 6).astype(np.float32)
        images.write(tmp_path / "a.tif", rgb, texts={"Seed": "7"}, metadata=metadata.Metadata(TEXTS, (72.0, 72.0)))
        assert struct.unpack("<H", (tmp_path / "a.tif").read_bytes()[2:4]) == (magic,)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert np.array_equal(file.asarray(), rgb) and len(file.pages) == 1
            codes = [tag.code for tag in file.pages[0].tags]
            second = file.pages[0].tags[34665].value
            assert codes == sorted(codes) and second["LensMake"] == "Zeiss" and second["OffsetTime"] == "+01:00"
            assert second["UserComment"] == '{"Seed": "7"}' and file.pages[0].tags[270].value == TEXTS[270]
        if magic == 42:
            assert tags_in(tmp_path / "a.tif")[0] == TEXTS


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_without_room_is_found_before_the_run(command, tmp_path, monkeypatch, capsys, ending):
    pixels = 32 * 24
    usage = SimpleNamespace(total=10**12, free=pixels * 3 // (30 if ending == ".jpg" else 10) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert main([*command, "--output", str(tmp_path / f"a{ending}")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"a{ending}: {usage.free} bytes are free there" in err and "make room" in err
    usage.free = 10**6
    assert main([*command, "--output", str(tmp_path / f"a{ending}")]) == 0
    usage.total = usage.free = 0  # a file system that does not know
    assert main([*command, "--output", str(tmp_path / f"b{ending}")]) == 0


def test_a_profile_that_a_jpeg_cannot_hold_is_found_before_the_run(tmp_path):
    most = 255 * 65519
    small = profiles.from_chromaticities((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 2.2)
    profile, larger = (struct.pack(">I", size) + small[4:] + bytes(size - len(small)) for size in (most, most + 1))
    images.check_fits(tmp_path / "a.jpg", (2, 3), profile=most)
    images.write(tmp_path / "a.jpg", RGB, icc=profile)
    for name in ("a.png", "a.webp", "a.tif"):
        images.check_fits(tmp_path / name, (2, 3), profile=most + 1)
    for refuse in (  # Pillow would write it with wrong numbers of segments
        lambda: images.check_fits(tmp_path / "a.jpg", (2, 3), profile=most + 1),
        lambda: images.write(tmp_path / "a.jpg", RGB, icc=larger),
    ):
        with pytest.raises(ImageError, match=r"jpg cannot hold a colour profile of 16,707,346 bytes; use \.png or"):
            refuse()
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["icc_profile"] == profile


FAILURES = [
    *(OSError(getattr(errno, name), name) for name in ("ENOSPC", "EROFS", "EIO", "EACCES", "ENOENT", "EFBIG")),
    *(OSError(getattr(errno, name, 5), name) for name in ("EDQUOT", "ESTALE")),
    MemoryError(), ValueError("encoder"), struct.error("argument out of range"), cv2.error("resize"),
    SystemError("tile"), RuntimeError("zlib"), OSError("encoder error -2"),
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_whatever_fails_at_the_end_the_picture_is_kept(command, tmp_path, monkeypatch, capsys, failure):
    """In another folder for a failure of its own, and in another format for one of the encoder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real = paths.atomic_write

    def fail_there(path, *rest, **named):
        if Path(path).parent == folder:
            raise failure
        return real(path, *rest, **named)

    def fail(*_):
        raise failure

    monkeypatch.setattr(paths, "atomic_write", fail_there)
    assert main([*command, "--output", str(folder / "a.webp"), "--save-iter", "2"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and not os.listdir(folder)
    assert all(line.startswith(f"cvstyle: {folder / name}: ") for line, name in zip(err, ("a_2.webp", "a.webp")))
    path = err[1].rpartition("; the picture is in ")[2]
    assert Path(path).parent == tmp_path and path.endswith("-a.webp") and images.read(path).size == (24, 32)

    monkeypatch.setattr(paths, "atomic_write", real)
    monkeypatch.setattr(writer, "to_samples", fail)  # of WebP and TIFF
    assert main([*command, "--output", str(folder / "a.webp")]) == 2
    path = capsys.readouterr().err.strip().rpartition("; the picture is in ")[2]
    assert Path(path).parent == folder and path.endswith("-a.png") and images.read(path).size == (24, 32)


def test_the_last_resort_is_an_array(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no encoder")

    monkeypatch.setattr(tifffile, "imwrite", fail)
    monkeypatch.setattr(importlib.import_module("cvstyle.images.picture"), "encode", fail)
    result = SimpleNamespace(picture=images.Picture(RGB + 255), iterations=3)
    with pytest.raises(ImageError, match=r"no encoder; the picture is in .*\.npy$") as caught:
        Output(str(tmp_path / "a.png"), 16, {}, 3).save_result(result)
    pixels = np.load(str(caught.value).rpartition(" is in ")[2])
    assert pixels.dtype == np.uint16 and pixels.shape == (2, 3, 3) and (pixels == 65535).all()


@linux
def test_a_picture_elsewhere_replaces_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = SimpleNamespace(picture=images.Picture(RGB), iterations=3)
    for count in (1, 2, 3):
        with pytest.raises(ImageError, match=f"No space left on device; the picture is in {tmp_path}/cvstyle-"):
            Output("/dev/full", 8, {}, 3).save_result(result)
        assert len(os.listdir(tmp_path)) == count


def test_a_folder_that_vanishes_during_the_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "folder"
    folder.mkdir()
    begin = Output.begin

    def vanish(self, *rest):
        begin(self, *rest)
        folder.rmdir()

    monkeypatch.setattr(Output, "begin", vanish)
    assert main([*command, "--output", str(folder / "a.jpg"), "--checkpoint", str(tmp_path / "c.npz")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "there is no folder" in err
    assert images.read(err.strip().rpartition(" is in ")[2]).size == (24, 32)


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*rest):
        assert len(os.listdir(tmp_path)) == 1 and os.listdir(tmp_path)[0].startswith(".")
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "to_samples", interrupt)
    monkeypatch.setattr(importlib.import_module("cvstyle.images.picture"), "encode", interrupt)
    for ending in ENDINGS:
        with pytest.raises(KeyboardInterrupt):
            images.write(tmp_path / f"a{ending}", RGB)
        assert os.listdir(tmp_path) == []


# Metadata

TEXTS = {
    270: "Tübingen, am Neckar ✓", 271: "Canon", 272: "EOS 5D", 306: "2020:01:02 03:04:05", 315: "Ann", 33432: "© Ann",
    36867: "2020:01:02 03:04:04", 36868: "2020:01:02 03:04:03", 36880: "+01:00", 36881: "+02:00", 36882: "+03:00",
    42035: "Zeiss", 42036: "Planar 50 mm",
}  # fmt: skip
SECRETS = (b"SERIAL", b"OWNER", b"MAKERNOTE", b"<x:xmpmeta", b"8BIM", b"COMMENT")


def photograph(path, **named):
    """A picture 40×30 with all that a camera writes, by Pillow, with UTF-8 in texts as phones write it."""
    exif = Image.Exif()
    second = exif.get_ifd(34665)
    for tag, text in TEXTS.items():
        (second if tag > 36000 and tag != 33432 else exif)[tag] = text.encode()
    second.update({0xA431: "SERIAL", 0xA430: "OWNER", 0x927C: b"MAKERNOTE", 0x9286: b"ASCII\0\0\0COMMENT"})
    exif.get_ifd(34853).update({1: "N", 2: (48.0, 31.0, 12.5)})
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image = Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 3))
    if path.suffix == ".webp":  # without a place for the resolution but Exif's
        exif.update({282: 300.0, 283: 300.0, 296: 2})
    if path.suffix == ".tif":  # Pillow leaves the second directory out, unless it is given in this way
        named["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        named["tiffinfo"].update({**exif, 34665: dict(second)})
    image.save(path, exif=exif, dpi=(300, 300), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>", **named)
    return path


def utf8(value):
    """A text of Exif as Pillow gives it, which takes all texts for Latin-1."""
    return value if isinstance(value, float | int | bytes) else value.encode("latin-1").decode()


def tags_in(path):
    """(texts, other tags) in a file, as Pillow reads them."""
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        found = {**exif, **exif.get_ifd(34665)}
        assert not exif.get_ifd(34853)
    texts = {tag: utf8(found.pop(tag)) for tag in TEXTS if tag in found}
    return texts, found


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
def test_what_is_harmless_is_kept_from_every_format_to_every_other(tmp_path, source, ending):
    picture = images.read(photograph(tmp_path / f"photo{source}"))
    assert picture.metadata.texts == TEXTS
    np.testing.assert_allclose(picture.metadata.dpi, (300, 300), atol=0.01)
    path = tmp_path / f"a{ending}"
    images.write(path, picture.rgb, texts={"Command": "cvstyle run", "Seed": "7"}, metadata=picture.metadata)
    texts, others = tags_in(path)
    assert texts == TEXTS and images.read_metadata(path) == {"Command": "cvstyle run", "Seed": "7"}
    assert [others[tag] for tag in (282, 283, 296)] == pytest.approx([300, 300, 2], abs=0.01)
    with Image.open(path) as image:
        if ending != ".webp":  # which has no place for it but Exif's
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert not [secret for secret in SECRETS if secret in path.read_bytes()]
    again = images.read(path)
    assert again.metadata.texts == TEXTS
    first = path.read_bytes()
    images.write(path, picture.rgb, texts={"Command": "cvstyle run", "Seed": "7"}, metadata=picture.metadata)
    assert path.read_bytes() == first


def test_deep_files_keep_it_too(tmp_path):
    pixels = random_pixels(6, 5, dtype=np.uint16)
    picture = images.read(photograph(tmp_path / "photo.jpg"))
    for name in ("a.tif", "a.png"):
        images.write(tmp_path / name, pixels / np.float32(257), bits=16, metadata=picture.metadata)
        again = images.read(tmp_path / name)
        assert again.metadata.texts == TEXTS and again.metadata.dpi == pytest.approx((300, 300), abs=0.01)
        np.testing.assert_allclose(again.rgb, pixels / 257, atol=1e-3)
    with tifffile.TiffFile(photograph(tmp_path / "photo.tif")) as file:  # with a directory of Exif
        assert metadata.of_tags(file.pages[0].tags) == picture.metadata
    named = {"photometric": "rgb", "metadata": None, "resolution": (40, 20), "resolutionunit": 3}
    tifffile.imwrite(tmp_path / "b.tif", pixels, **named)
    assert images.read(tmp_path / "b.tif").metadata == metadata.Metadata({}, (101.6, 50.8))  # in centimetres


def test_a_photograph_that_is_turned_keeps_its_two_resolutions(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif, dpi=(100, 200))
    picture = images.read(tmp_path / "a.jpg")
    assert picture.size == (4, 2) and picture.metadata.dpi == (200, 100)


@pytest.mark.parametrize("exif", [
    b"junk", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0e\x01\x02\0" * 99,
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x1a\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0" + bytes(8),
])  # fmt: skip
def test_metadata_that_are_damaged_are_no_obstacle(tmp_path, exif):
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    found = images.read(tmp_path / "a.jpg").metadata
    assert found is None or not found.texts


def test_texts_of_every_length_and_encoding(tmp_path):
    exif = Image.Exif()
    exif[270] = ("ü" * 30000).encode()
    exif[315] = b"Andr\xe9"  # Latin-1
    exif[33432] = b"Ann\0Bob\0\0"  # photographer and editor
    exif[271] = b"  \0"
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif, dpi=(0, 0))
    found = images.read(tmp_path / "a.jpg").metadata
    assert found.texts == {270: "ü" * 2000, 315: "André", 33432: "Ann Bob"} and found.dpi is None
    long = metadata.Metadata(dict.fromkeys(TEXTS, "ü" * 2000), (72.0, 72.0))
    command = "cvstyle run --style " + ",".join(["a long name é.png"] * 9000)
    for ending in ENDINGS:
        images.write(tmp_path / f"b{ending}", RGB, texts={"Command": command, "Seed": "7"}, metadata=long)
        assert tags_in(tmp_path / f"b{ending}")[0] == long.texts
        texts = images.read_metadata(tmp_path / f"b{ending}")
        assert texts["Seed"] == "7"
        assert texts["Command"] == command or (ending == ".jpg" and command.startswith(texts["Command"]))
        assert len(texts["Command"]) > 10000


def test_texts_of_a_png_and_of_earlier_versions(tmp_path):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in {"Author": "Ann", "Description": "a bridge", "Copyright": "© Ann", "Software": "x"}.items():
        info.add_itxt(key, value)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png", pnginfo=info)
    assert images.read(tmp_path / "a.png").metadata.texts == {270: "a bridge", 315: "Ann", 33432: "© Ann"}
    stored = {"Software": "cvstyle 0.1", "Seed": "3"}
    exif = Image.Exif()
    exif[270] = json.dumps(stored)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.webp", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 4, 3), np.uint16), description=exif[270], metadata=None)
    for name in ("a.webp", "a.tif"):
        assert images.read_metadata(tmp_path / name) == stored and images.read(tmp_path / name).metadata is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_keeps_it_or_strips_it(command, tmp_path, ending):
    """The seed is in intermediate pictures too; with --strip nothing but pixels and profile is in a file."""
    assert main([*command, "--output", str(tmp_path / f"a{ending}"), "--save-iter", "2"]) == 0
    for name, iteration in ((f"a{ending}", "4"), (f"a_2{ending}", "2")):
        texts = images.read_metadata(tmp_path / name)
        assert texts["Seed"] == "5" and texts["Iterations"] == iteration and "--save-iter 2" in texts["Command"]
        assert tags_in(tmp_path / name)[0] == TEXTS
    assert main([*command, "--output", str(tmp_path / f"b{ending}"), "--save-iter", "2", "--strip"]) == 0
    for name in (f"b{ending}", f"b_2{ending}"):
        data = (tmp_path / name).read_bytes()
        texts, others = tags_in(tmp_path / name)
        assert not images.read_metadata(tmp_path / name) and not texts
        assert not any(word in data for word in (b"cvstyle", b"exif", b"Exif", b"iTXt", b"pHYs", b"Canon", b"--save"))
        assert ending == ".tif" or not others
    whole, bare = (images.read(tmp_path / f"{name}{ending}") for name in "ab")
    assert np.array_equal(whole.rgb, bare.rgb) and bare.metadata is None


def test_a_random_seed_is_in_every_picture(command, tmp_path):
    words = [word for word in command if word not in ("--seed", "5")]
    assert main([*words, "--output", str(tmp_path / "a.png"), "--save-iter", "2"]) == 0
    seeds = {images.read_metadata(tmp_path / name)["Seed"] for name in ("a.png", "a_2.png")}
    assert len(seeds) == 1 and seeds.pop().isdecimal()


def test_python_keeps_it_or_strips_it(command, tmp_path):
    photo = command[2]
    picture = cvstyle.read_picture(photo)
    result = cvstyle.stylize(photo, [photo], image_size=32, num_iterations=1, backend="numpy").picture
    for given in (picture, result, Image.open(photo)):
        cvstyle.write_picture(tmp_path / "a.png", given)
        assert tags_in(tmp_path / "a.png")[0] == TEXTS
        cvstyle.write_picture(tmp_path / "a.png", given, strip=True)
        assert tags_in(tmp_path / "a.png") == ({}, {})
    cvstyle.write_picture(tmp_path / "a.png", replace(picture, metadata=None))
    assert tags_in(tmp_path / "a.png") == ({}, {})


# Encoding


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 7), (700, 901), (2, 300_000)])
@pytest.mark.parametrize("channels", [3, 4])
def test_png_in_strips(bits, shape, channels):
    rng = np.random.default_rng(1)
    rgb = rng.uniform(-20, 280, (*shape, 3)).astype(np.float32)
    alpha = rng.uniform(0, 1, shape).astype(np.float32) if channels == 4 else None
    picture = images.Picture(rgb, alpha)
    highest = (1 << bits) - 1
    expected = np.rint(rgb.astype(np.float64).clip(0, 255) / 255 * highest)
    if alpha is not None:
        expected = np.dstack([expected, np.rint(alpha.astype(np.float64) * highest)])
    samples = to_samples(picture, bits)
    assert samples.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.abs(samples - expected).max() <= 1 and (samples != expected).mean() < (1e-4 if bits == 8 else 0.01)
    decoded = cv2.imdecode(np.frombuffer(images.png(picture, bits=bits), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded[..., [2, 1, 0, 3][:channels]], samples)


@pytest.mark.parametrize("ending, bits, most", [(".png", 8, 2), (".png", 16, 2), (".tif", 8, 6), (".jpg", 8, 9)])
@linux
def test_writing_takes_the_memory_of_the_samples(tmp_path, ending, bits, most):
    """Bytes per pixel at the peak, beyond the picture: strips of PNG, samples of TIFF, and Pillow's copy for JPEG."""
    code = """if True:
        import sys
        import numpy as np
        from cvstyle import images, process
        path, bits = sys.argv[1], int(sys.argv[2])
        rgb = np.random.default_rng(0).uniform(0, 255, (1500, 2000, 3)).astype(np.float32)
        images.write(path, rgb[:200], bits=bits)
        process.reset_peak()
        before = process.resident()
        images.write(path, rgb, bits=bits)
        print((process.peak() - before) / rgb[..., 0].size)
    """
    words = [sys.executable, "-c", code, str(tmp_path / f"a{ending}"), str(bits)]
    found = float(subprocess.run(words, capture_output=True, env=environment(), check=True).stdout)
    assert found < most
