"""`cvstyle models` and the download behind it, against a server on loopback; no other address is asked."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import nets
import pytest

from cvstyle import zoo
from cvstyle.cli import main
from cvstyle.errors import ModelError, OptionError
from cvstyle.zoo import cards

DATA = bytes(range(256)) * 4000
OTHER = DATA[::-1]
SHA1 = "sha1:" + hashlib.sha1(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Files by path, and how to misbehave: for every request, `log` has its path and the Range asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.log = {}, []
        self.ranges, self.etag, self.kind = True, '"one"', "application/octet-stream"
        self.break_after = self.pause_after = self.span = None

    def handle_error(self, request, client_address):
        """Clients go away in these tests: no traceback."""

    def url(self, name="", folder=""):
        return f"http://127.0.0.1:{self.server_address[1]}{folder}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.log.append((self.path, asked))
        body = server.files.get(self.path)
        if body is None:
            return self.send_error(404, "Not Found")
        same = self.headers.get("If-Range") in (None, server.etag)
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges and same else 0
        if first >= len(body):
            return self.send_error(416, "Range Not Satisfiable")
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", server.span or f"bytes {first}-{len(body) - 1}/{len(body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        if server.pause_after is not None:
            self.wfile.write(body[first : server.pause_after])
            self.wfile.flush()
            time.sleep(20)
        self.wfile.write(body[first:][: server.break_after])

    def log_message(self, *_):
        """Silence."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.files["/data"] = DATA
        yield server
        server.shutdown()


def file_at(*urls, **more):
    return zoo.File("data", urls, **({"digest": SHA1} | more))


def part_of(tmp_path):
    return tmp_path / "data.part"


def test_download(server, tmp_path):
    seen = []
    fetched = zoo.download(
        file_at(server.url("data")), tmp_path / "new" / "folder", progress=lambda f, u, d, t: seen.append((d, t))
    )
    assert (fetched.digest, fetched.checked, fetched.downloaded) == (SHA1, True, True)
    assert (tmp_path / "new" / "folder" / "data").read_bytes() == DATA
    assert os.listdir(tmp_path / "new" / "folder") == ["data"]
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)


def test_a_good_file_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    assert not zoo.download(file_at(server.url("data")), tmp_path).downloaded
    assert server.log == []


def test_another_file_of_the_name_is_left_alone(server, tmp_path):
    (tmp_path / "data").write_bytes(b"mine")
    with pytest.raises(ModelError, match=f"data: this is not the published file.*{SHA1}; move it away"):
        zoo.download(file_at(server.url("data")), tmp_path)
    assert (tmp_path / "data").read_bytes() == b"mine" and server.log == []


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"', ""])
def test_a_broken_download_goes_on(server, tmp_path, etag):
    file, server.break_after, server.etag = file_at(server.url("data")), 300_000, etag
    with pytest.raises(ModelError, match="broke after 300,000 of 1,024,000 bytes; 300,000 bytes are kept"):
        zoo.download(file, tmp_path)
    assert part_of(tmp_path).read_bytes() == DATA[:300_000]
    with pytest.raises(ModelError, match="600,000 of"):
        zoo.download(file, tmp_path)
    server.break_after = None
    zoo.download(file, tmp_path)
    assert [asked for _, asked in server.log] == [None, "bytes=300000-", "bytes=600000-"]
    assert (tmp_path / "data").read_bytes() == DATA and os.listdir(tmp_path) == ["data"]


def test_going_on_without_a_digest_needs_an_etag(server, tmp_path):
    file, server.break_after, server.etag = file_at(server.url("data"), digest=""), 300_000, ""
    for _ in range(2):
        with pytest.raises(ModelError, match="300,000 of"):
            zoo.download(file, tmp_path)
    server.break_after = None
    fetched = zoo.download(file, tmp_path)
    assert [asked for _, asked in server.log] == [None, None, None]
    assert fetched.digest == "sha256:" + hashlib.sha256(DATA).hexdigest() and not fetched.checked


@pytest.mark.parametrize("digest", [SHA1, ""])
def test_a_file_that_changed_on_the_server_is_started_over(server, tmp_path, digest):
    server.files["/data"], server.break_after = OTHER, 300_000
    file = file_at(server.url("data"), digest=digest)
    with pytest.raises(ModelError):
        zoo.download(file, tmp_path)
    server.files["/data"], server.break_after, server.etag = DATA, None, '"two"'
    zoo.download(file, tmp_path)
    assert (tmp_path / "data").read_bytes() == DATA


def test_a_wrong_piece_is_found_out_and_started_over(server, tmp_path):
    part_of(tmp_path).write_bytes(OTHER[:1000])
    zoo.download(file_at(server.url("data")), tmp_path)
    assert [asked for _, asked in server.log] == ["bytes=1000-", None]
    assert (tmp_path / "data").read_bytes() == DATA


def test_a_piece_that_is_too_long_is_started_over(server, tmp_path):
    part_of(tmp_path).write_bytes(DATA + b"more")
    zoo.download(file_at(server.url("data")), tmp_path)
    assert (tmp_path / "data").read_bytes() == DATA


def test_a_whole_piece_needs_no_server(server, tmp_path):
    part_of(tmp_path).write_bytes(DATA)
    zoo.download(file_at(server.url("data"), size=len(DATA)), tmp_path)
    assert (tmp_path / "data").read_bytes() == DATA and server.log == []


def test_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    part_of(tmp_path).write_bytes(DATA[:1000])
    zoo.download(file_at(server.url("data")), tmp_path)
    assert (tmp_path / "data").read_bytes() == DATA


@pytest.mark.parametrize(
    ("span", "message"),
    [("bytes 7-9/10", "the server sent bytes from 7 on, not from 1,000"), ("?", "does not say which; 1,000 bytes")],
)
def test_a_server_that_sends_another_part(server, tmp_path, span, message):
    part_of(tmp_path).write_bytes(DATA[:1000])
    server.span = span
    with pytest.raises(ModelError, match=message):
        zoo.download(file_at(server.url("data")), tmp_path)
    assert part_of(tmp_path).read_bytes() == DATA[:1000]


def test_mirrors_take_turns(server, tmp_path):
    server.files["/wrong/data"], server.files["/short/data"] = OTHER, DATA[:-1]
    urls = [server.url("data", folder) for folder in ("/missing", "/wrong", "/short", "")]
    zoo.download(file_at(*urls, size=len(DATA)), tmp_path)
    assert [path for path, _ in server.log] == ["/missing/data", "/wrong/data", "/short/data", "/data"]
    assert (tmp_path / "data").read_bytes() == DATA


def test_one_mirror_goes_on_where_another_broke(server, tmp_path):
    server.files["/second/data"], server.break_after = DATA, 300_000
    with pytest.raises(ModelError, match="600,000 bytes are kept"):
        zoo.download(file_at(server.url("data"), server.url("data", "/second")), tmp_path)
    assert server.log == [("/data", None), ("/second/data", "bytes=300000-")]


def test_wrong_digest(server, tmp_path):
    server.files["/data"] = OTHER
    with pytest.raises(ModelError) as caught:
        zoo.download(file_at(server.url("data")), tmp_path)
    message, found = str(caught.value), hashlib.sha1(OTHER).hexdigest()
    assert SHA1 in message and found in message and server.url("data") in message and "\n" not in message
    assert os.listdir(tmp_path) == []


def test_errors_name_address_cause_and_way_out(server, tmp_path):
    server.files["/page/data"] = b"<html>"
    dead = "http://127.0.0.1:1/data"
    with pytest.raises(ModelError, match=r"^data cannot be downloaded: .*; try later, name a mirror") as caught:
        zoo.download(file_at(server.url("none"), dead), tmp_path)
    assert f"{server.url('none')}: the server answers 404 Not Found" in str(caught.value)
    assert f"{dead}: Connection refused" in str(caught.value)
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(ModelError, match="the server sent a web page, not the file"):
        zoo.download(file_at(server.url("data", "/page"), digest=""), tmp_path)
    assert os.listdir(tmp_path) == []


def test_trouble_here_is_not_blamed_on_the_mirrors(server, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    file = file_at(server.url("data"), server.url("data"))
    with pytest.raises(ModelError, match=r"the folder cannot be made: .*; name another with dir"):
        zoo.download(file, blocked / "below")
    (tmp_path / "data.part").mkdir()
    with pytest.raises(ModelError, match=r"data\.part: Is a directory; name another folder"):
        zoo.download(file, tmp_path)
    (tmp_path / "data.part").rmdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ModelError, match="1,024,000 bytes are still to come and the disk has room for 1,000;"):
        zoo.download(file, tmp_path)


def test_a_server_that_falls_silent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("cvstyle.zoo.download"), "_TIMEOUT", 0.3)
    server.pause_after = 300_000
    with pytest.raises(ModelError, match=r"no answer in 0.3 seconds; .* bytes are kept"):
        zoo.download(file_at(server.url("data")), tmp_path)
    assert part_of(tmp_path).stat().st_size > 0


def test_base_url_must_be_an_address(tmp_path):
    with pytest.raises(OptionError, match="base_url /srv/models: an address that begins with http"):
        zoo.download(file_at("unused"), tmp_path, base_url="/srv/models")


# The command


def mirror(server, name="googlenet", folder="/mirror"):
    """Serve small files under the names of a card's, whose digests are changed to fit; returns the card."""
    card = zoo.CARDS[name]
    files = {}
    for role in ("proto", "model"):
        file = getattr(card, role)
        data = f"{role} of {name} ".encode() * 5000
        server.files[f"{folder}/{file.name}"] = data
        files[role] = replace(file, size=len(data), digest="sha1:" + hashlib.sha1(data).hexdigest())
    return replace(card, **files)


@pytest.fixture
def googlenet(server, monkeypatch):
    card = mirror(server)
    monkeypatch.setitem(zoo.CARDS, "googlenet", card)
    return card


def test_fetch(server, googlenet, tmp_path, capsys):
    command = ["models", "fetch", "bvlc_GoogLeNet", "--dir", str(tmp_path), "--base-url", server.url("", "/mirror")]
    assert main(command) == 0
    printed = capsys.readouterr()
    proto, model = (str(tmp_path / file.name) for file in (googlenet.proto, googlenet.model))
    run = f"cvstyle run --proto {proto} --model {model} --content photo.jpg --style painting.jpg"
    assert printed.out.splitlines() == [
        f"{proto}: downloaded; {googlenet.proto.digest}",
        f"{model}: downloaded; {googlenet.model.digest}",
        run,
    ]
    assert printed.err.splitlines() == [server.url(f.name, "/mirror") for f in (googlenet.proto, googlenet.model)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.count("was already present") == 2 and printed.out.splitlines()[-1] == run
    assert len(server.log) == 2


def test_fetch_says_what_it_could_not_check(server, tmp_path, capsys, monkeypatch):
    card = mirror(server)
    monkeypatch.setitem(zoo.CARDS, "googlenet", replace(card, model=replace(card.model, digest="", size=None)))
    assert main(["models", "fetch", "googlenet", "--dir", str(tmp_path), "--base-url", server.url("", "/mirror")]) == 0
    digest = hashlib.sha256(server.files[f"/mirror/{card.model.name}"]).hexdigest()
    assert f"downloaded; sha256:{digest}, which could not be checked: no digest is" in capsys.readouterr().out


def test_fetch_fails_in_one_line(server, googlenet, tmp_path, capsys):
    assert main(["models", "fetch", "googlenet", "--dir", str(tmp_path), "--base-url", server.url("", "/none")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("cvstyle: bvlc_googlenet_deploy.prototxt cannot be downloaded: http://127.0.0.1:")


def test_a_fetch_that_fails_leaves_no_empty_folder(server, googlenet, tmp_path, capsys):
    folder, kept = tmp_path / "new" / "deeper", tmp_path / "kept"
    kept.mkdir()
    for place in (folder, kept):
        command = ["models", "fetch", "googlenet", "--dir", str(place), "--base-url"]
        assert main([*command, server.url("", "/none")]) == 2  # nothing there
        assert main([*command, "http://127.0.0.1:9/"]) == 2  # nobody listens
        assert main([*command, "nowhere"]) == 2
    wheel = ["--dir", str(folder), "--wheel", str(tmp_path / "absent.whl")]
    assert main(["models", "fetch", "resnet50-half", *wheel]) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["kept"]
    server.files["/empty/" + googlenet.proto.name] = b""
    assert main(["models", "fetch", "googlenet", "--dir", str(folder), "--base-url", server.url("", "/empty")]) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["kept"]
    server.files["/half/" + googlenet.proto.name] = server.files["/mirror/" + googlenet.proto.name]
    assert main(["models", "fetch", "googlenet", "--dir", str(folder), "--base-url", server.url("", "/half")]) == 2
    assert [p.name for p in folder.iterdir()] == [googlenet.proto.name]  # what came is kept
    capsys.readouterr()


def test_ctrl_c_keeps_what_came(server, tmp_path):
    """In a process of its own: the signal must reach a download under way."""
    server.files["/vgg_normalised.caffemodel"], server.pause_after = DATA, 400_000
    name = zoo.CARDS["vgg19-normalised"].model.name
    code = (
        "import sys; from dataclasses import replace; from cvstyle import zoo, cli\n"
        "card = zoo.CARDS['vgg19-normalised']\n"
        "zoo.CARDS[card.name] = replace(card, proto=card.model)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = ["models", "fetch", "vgg19-normalised", "--dir", str(tmp_path), "--base-url", server.url()]
    process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True)
    part = tmp_path / f"{name}.part"
    end = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; the partial download is" in errors and "Traceback" not in errors
    assert DATA.startswith(part.read_bytes()) and part.stat().st_size


def test_unknown_name(capsys):
    for action in ("show", "fetch"):
        assert main(["models", action, "vgg91"]) == 2
        assert capsys.readouterr().err.startswith("cvstyle: there is no known model 'vgg91'; did you mean vgg19")
    assert main(["models", "fetsh"]) == 2
    assert "invalid choice: 'fetsh'" in capsys.readouterr().err


def test_list_and_show(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CVSTYLE_MODELS", str(tmp_path))
    googlenet = zoo.CARDS["googlenet"]
    for file in (googlenet.proto, googlenet.model):
        (tmp_path / file.name).write_bytes(b"\0" * 2_000_000)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(zoo.CARDS) and str(tmp_path) in lines[-1]
    rows = {line.split()[0]: line for line in lines}
    assert "  2 MB" in rows["googlenet"] and " yes " in rows["googlenet"]
    assert "575 MB" in rows["vgg19"] and " no " in rows["vgg19"]
    assert main(["models", "show", "VGG_ILSVRC_19_layers"]) == 0
    shown = capsys.readouterr().out
    card = zoo.CARDS["vgg19"]
    for fact in (card.licence, card.source, *card.model.urls, card.model.digest, "relu4_2", str(tmp_path)):
        assert fact in shown


def test_the_embedded_network_needs_no_download(capsys):
    for name, used in (("distilled", "unless --proto"), ("wavelet", "--model wavelet")):
        assert main(["models", "fetch", name]) == 0
        out = capsys.readouterr().out
        assert "comes with cvstyle" in out and used in out


def test_cards_are_complete():
    digest = re.compile(r"(sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})?")
    names = [name.lower() for card in zoo.CARDS.values() for name in (card.name, *card.aliases)]
    files = [file for card in zoo.CARDS.values() for file in (card.proto, card.model, *card.extra_files)]
    assert len(set(names)) == len(names) and len({file.name for file in files}) == len(files)
    for file in files:
        assert digest.fullmatch(file.digest)
        # What comes over plain http can be changed on the way: only a digest makes it trustworthy.
        assert file.digest or all(url.startswith("https://") for url in file.urls)
    for name in names:
        assert zoo.find(name.upper()).name in zoo.CARDS


# Defaults


@pytest.mark.parametrize(
    ("build", "content", "weights"),
    [
        (lambda: nets.vgg(16, width=32, size=(32, 32), classifier=False), ["relu4_2"], (5, 100)),
        (lambda: nets.vgg(19, width=32, size=(32, 32), classifier=False), ["relu4_2"], (5, 100)),
        (lambda: nets.nin(width=32), ["relu0", "relu3", "relu7", "relu12"], (10, 500)),
        (lambda: nets.caffenet(width=16), ["relu4"], (10, 100)),
        (lambda: nets.alexnet(width=16), ["relu4"], (10, 100)),
        (lambda: nets.googlenet(width=16), ["inception_3a/output"], (10, 100)),
        (lambda: nets.squeezenet(width=16), None, (10, 100)),
    ],
    ids=["vgg16", "vgg19", "nin", "caffenet", "alexnet", "googlenet", "unknown"],
)
def test_defaults(build, content, weights):
    names = [layer.name for layer in build().layers]
    found = zoo.defaults(names)
    assert found["content_layers"] == content and (found["content_weight"], found["style_weight"]) == weights
    assert (found["tv_weight"], found["num_iterations"]) == (1e-3, 400)
    assert set(found["style_layers"] or ()) <= set(names) and bool(found["style_layers"]) == bool(content)
    if content:
        found["style_layers"].clear()  # a caller may change what it was given
        assert zoo.defaults(names)["style_layers"]


@pytest.mark.parametrize("build", [lambda: nets.vgg(19, width=32, size=(32, 32)), lambda: nets.nin(width=32)])
def test_losses_of_small_features_are_balanced(build):
    """Normalised networks and those of other trainings: the fixed weight of total variation would leave no picture."""
    net = build()
    first, *_ = net.weights
    small = replace(net, weights={**net.weights, first: [blob / 20 for blob in net.weights[first]]})
    names = [layer.name for layer in net.layers]
    assert zoo.has_reference_scale(net) and zoo.has_reference_scale(replace(net, weights={}))
    assert not zoo.has_reference_scale(small)
    published, balanced = zoo.defaults(names), zoo.defaults(names, reference_scale=False)
    assert (published["balance"], balanced["balance"]) == ("none", "targets")
    assert (balanced["content_weight"], balanced["style_weight"]) == (10, 100)
    assert balanced["style_layers"] == published["style_layers"]
    assert zoo.defaults(names, compat=True) == zoo.defaults(names, compat=True, reference_scale=False)


@pytest.mark.parametrize(
    "names", [["gabor1", "octave1", "octave2"], ["relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4"]]
)
def test_networks_that_come_with_it_are_recognised(names):
    ours, reference = zoo.defaults(names), zoo.defaults(names, compat=True)
    assert ours["content_layers"] == reference["content_layers"] and ours["init"] == "image"
    vgg = zoo.defaults(["conv1_1"], compat=True)
    assert all(reference[name] == vgg[name] for name in vgg if not name.endswith("_layers"))
    assert vgg["num_iterations"] == 1000 > zoo.defaults(["conv1_1"])["num_iterations"]


def test_default_folder(monkeypatch):
    monkeypatch.setenv("CVSTYLE_MODELS", "/srv/models")
    assert str(zoo.default_folder()) == "/srv/models"
    monkeypatch.delenv("CVSTYLE_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(zoo.default_folder()) == "/cache/cvstyle/models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(zoo.default_folder()) == "/home/me/.cache/cvstyle/models"


def test_embedded_files(tmp_path, monkeypatch):
    """In the checkout beside the package, in an installed wheel inside it."""
    package = tmp_path / "cvstyle"
    package.mkdir()
    monkeypatch.setattr(cards, "__file__", str(package / "zoo" / "cards.py"))
    with pytest.raises(ModelError, match="which comes with cvstyle, is missing from this installation; reinstall"):
        zoo.embedded_files()
    for folder in (tmp_path / "models", package / "models"):
        folder.mkdir()
        for name in ("distilled.prototxt", "distilled.caffemodel"):
            (folder / name).write_bytes(b"")
        assert zoo.embedded_files() == (str(folder / "distilled.prototxt"), str(folder / "distilled.caffemodel"))
