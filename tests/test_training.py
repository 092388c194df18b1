"""Training the embedded network: the gathering of pictures, and every stage on a teacher and pictures made here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import nets
import numpy as np
import pytest
from PIL import Image

from cvstyle import load_network
from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_caffemodel, write_prototxt

MODELS = Path(__file__).resolve().parent.parent / "models"
sys.path.append(str(MODELS))
LAYERS = ("conv1_relu", "res2a_relu", "res2c_relu", "res3a_relu", "res3d_relu", "res4b_relu")


def forest(seed, size=(300, 260)):
    """A picture with detail at several scales, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    scales = [cv2.resize(rng.normal(0, 40, (n, n, 3)), size[::-1], interpolation=cv2.INTER_CUBIC) for n in (4, 16, 64)]
    return np.clip(128 + sum(scales), 0, 255).astype(np.uint8)


# Gathering


@pytest.fixture
def repository(tmp_path):
    """A bare copy, as --mirror has it, with two pictures, one of them twice, a small and an even one."""
    tree = tmp_path / "tree"
    (tree / "art").mkdir(parents=True)
    for name, picture in (("a", forest(1)), ("b", forest(2)), ("copy", forest(2))):
        Image.fromarray(picture).save(tree / "art" / f"{name}.png")
    Image.fromarray(forest(3)[:150]).save(tree / "art" / "small.png")
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(tree / "art" / "even.png")
    Image.fromarray(forest(4)).save(tree / "elsewhere.png")
    git = ["git", "-C", str(tree), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "pictures"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "clone", "-q", "--bare", str(tree), str(tmp_path / "some+one" / "repo")], check=True)
    return commit


def gather(tmp_path, lines):
    """The rows of both manifests, without their headers."""
    (tmp_path / "list.txt").write_text(lines)
    command = [sys.executable, str(MODELS / "training" / "gather.py"), "list.txt", "out", "--mirror", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return [(tmp_path / "out" / f"{n}.tsv").read_text().splitlines()[1:] for n in ("pictures", "heldout")]


def test_gathering(tmp_path, repository):
    source = f"github some/one@{repository} painting CC0 art/*"
    pictures, heldout = gather(tmp_path, f"hold *--b.jpg  # to judge by\n{source}\n")
    assert [row.split("\t")[3] for row in pictures] == ["art/a.png"]
    assert [row.split("\t")[3] for row in heldout] == ["art/b.png"]
    name, kind, what, _, licence = pictures[0].split("\t")
    assert (kind, what, licence) == ("painting", f"some/one@{repository}", "CC0")
    kept = np.asarray(Image.open(tmp_path / "out" / "pictures" / name)).astype(float)
    assert np.abs(kept - forest(1)).mean() < 8  # of a JPEG file
    assert gather(tmp_path, f"{source}\n") == [pictures, heldout]  # a source that is known is not read again


def test_a_line_that_is_no_source(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        gather(tmp_path, "github some/one sculpture CC0 *\n")
    assert b"list.txt:1: not a source" in caught.value.stderr


# Training


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """(train.py as a module, its arguments): a narrow ResNet-50 for a teacher, and four pictures."""
    pytest.importorskip("torch", reason="PyTorch is not installed; test_embedded.py covers the network it made")
    import train

    folder = tmp_path_factory.mktemp("training")
    net = nets.resnet50(16, (96, 96))
    write_prototxt(folder / "deploy.prototxt", net)
    write_caffemodel(folder / "resnet.caffemodel", net)
    (folder / "pictures").mkdir()
    for seed in range(4):
        Image.fromarray(forest(seed)).save(folder / "pictures" / f"{seed}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "TEACHER_LAYERS", LAYERS)
        yield train, folder


def run(training, *more):
    train, folder = training
    files = [str(folder / "deploy.prototxt"), str(folder / "resnet.caffemodel")]
    form = "c7,8,2=relu1 m3 c3,8,1=relu2_1 b8=relu2_2 c3,8,2=relu3_1 b8=relu3_2 c3,8,2=relu4"
    fixed = ["--pictures", str(folder / "pictures"), "--teacher", *files, "--form", form, "--batch", "4"]
    train.main([str(folder / "work"), *fixed, *more])
    return folder / "work"


def test_the_teacher_is_the_network(training):
    import torch

    train, folder = training
    net = load_network(folder / "deploy.prototxt", folder / "resnet.caffemodel", "numpy")
    x = np.random.default_rng(0).normal(0, 60, (1, 3, 71, 90)).astype(np.float32)
    found = net.program(list(LAYERS)).forward(net.ops.asarray(x), needs_grad=False)
    teacher = train.Teacher(folder / "deploy.prototxt", folder / "resnet.caffemodel", LAYERS)
    for name, features in zip(LAYERS, teacher(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(features.numpy(), found[name], atol=1e-5 * found[name].max(), err_msg=name)


def test_stages(training, tmp_path, capsys):
    """Each leaves what the next one needs and goes on where it was stopped; what is written computes the same."""
    import torch

    train, _ = training
    work = run(training, "--stages", "paint", "--paint-rounds", "1")
    rounds = ["--paint-rounds", "1", "--until", "3", "--steps", "5"]
    run(training, "--stages", "distil", "--steps", "2", *rounds[:2])
    assert torch.load(work / "distil.pt")["step"] == 2
    run(training, "--stages", "paint,distil,repaint,distil,write", *rounds, "--output", str(tmp_path / "made"))
    out = capsys.readouterr().out
    assert re.findall(r"distil (\d):", out) == ["2", "3", "5"] and out.count("by-teacher.npy: 1 of 1") == 1
    for name in ("by-teacher", "by-student"):
        painted = np.load(work / f"{name}.npy")
        assert painted.shape == (8, 5, 192, 192, 3) and painted.dtype == np.uint8
        assert all((first != second).any() for first, second in zip(painted[0], painted[0, 1:]))
    student = train.student_of(torch.load(work / "distil.pt")).folded()
    exact = student.net_def("exact")
    write_prototxt(tmp_path / "exact.prototxt", exact)
    write_caffemodel(tmp_path / "exact.caffemodel", exact)
    x = np.random.default_rng(0).normal(0, 60, (1, 3, 64, 80)).astype(np.float32)
    with torch.no_grad():
        found = student(torch.from_numpy(x))
    for name, most in (("exact", 1e-5), ("made", 0.03)):  # the latter has rounded weights
        net = load_network(tmp_path / f"{name}.prototxt", tmp_path / f"{name}.caffemodel", "numpy")
        ours = net.program(list(found)).forward(net.ops.asarray(x), needs_grad=False)
        for layer, features in found.items():
            difference = np.linalg.norm(ours[layer] - features.numpy())
            assert difference < most * np.linalg.norm(features.numpy()), (name, layer)
    for weights, _ in read_net(tmp_path / "made.prototxt", tmp_path / "made.caffemodel").weights.values():
        assert all(len(np.unique(channel)) <= 255 for channel in weights)  # a byte each, so to say


def test_folding_changes_nothing(training):
    import torch

    student = training[0].Student("c3,8,2=a m3 b4=b")
    with torch.no_grad():
        for _ in range(3):
            student(torch.randn(4, 3, 32, 32) * 60)
        student.eval()
        x = torch.randn(2, 3, 37, 41) * 60
        for name, features in student.folded()(x).items():
            torch.testing.assert_close(features, student(x)[name], rtol=1e-4, atol=1e-5)


def test_rounding():
    """To the nearest multiple of each channel's own power of two: 1/64 is the first that 127 of reach 1.27."""
    pytest.importorskip("torch", reason="PyTorch is not installed; test_embedded.py covers the weights it rounded")
    from training.networks import rounded

    channel = np.float32([1.27, -0.3, 0.004, 0]).reshape(1, 1, 2, 2)
    found = rounded(np.concatenate([channel, channel / 1000]), 127)
    np.testing.assert_array_equal(found[0].ravel(), np.float32([81, -19, 0, 0]) / 64)
    assert np.abs(found[1] - channel[0] / 1000).max() <= 2.0**-17
    assert rounded(channel, None) is channel
