"""Layers chosen from the graph, with the answers reckoned by hand, and how a run says so."""

from __future__ import annotations

from pathlib import Path

import nets
import pytest
import runs

from cvstyle import Job, Options, checkpoint, stylize
from cvstyle.caffe import read_net
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.graph import Network
from cvstyle.zoo import choose_layers

SHARED = Path(__file__).resolve().parents[2] / "shared"
OPEN_NSFW = SHARED / "models" / "open_nsfw" / "deploy.prototxt"


def parsed(folder, text, channels=3):
    """The network of a prototxt whose layers are lines "name type bottom[+bottom] parameters"."""
    kinds = {"conv": "Convolution", "pool": "Pooling", "relu": "ReLU", "sum": "Eltwise", "join": "Concat",
             "bn": "BatchNorm"}  # fmt: skip
    lines = [f'name: "made" input: "data" input_shape {{ dim: 1 dim: {channels} dim: 64 dim: 64 }}']
    for line in filter(str.strip, text.splitlines()):
        name, kind, bottoms, *rest = line.split(maxsplit=3)
        shape = ""
        if kind in ("conv", "pool"):  # kernel/stride/pad, then the outputs of a convolution
            numbers, *outputs = rest[0].split()
            kernel, stride, pad = numbers.split("/")
            more = f"num_output: {outputs[0]}" if outputs else "pool: MAX"
            message = {"conv": "convolution", "pool": "pooling"}[kind]
            shape = f"{message}_param {{ {more} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        elif rest:
            shape = rest[0]
        read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split("+"))
        lines.append(f'layer {{ name: "{name}" type: "{kinds.get(kind, kind)}" {read} top: "{name}" {shape} }}')
    path = folder / "made.prototxt"
    path.write_text("\n".join(lines))
    return Network(read_net(str(path)), ops=None)


def chosen(network, *sizes):
    """(content layers, style layers) as comma lists."""
    found = choose_layers(network, sizes or [(512, 512)])
    return tuple(",".join(found[name]) for name in ("content_layers", "style_layers"))


# Fields: a1 3, a2 5, b1 10, b2 14, c1 24, c2 32, d1 52, d2 68, d3 84.
CHAIN = """
a1 conv data 3/1/1 8
ra1 relu a1
a2 conv ra1 3/1/1 8
ra2 relu a2
p1 pool ra2 2/2/0
b1 conv p1 3/1/1 8
rb1 relu b1
b2 conv rb1 3/1/1 8
rb2 relu b2
p2 pool rb2 2/2/0
c1 conv p2 3/1/1 8
rc1 relu c1
c2 conv rc1 3/1/1 8
rc2 relu c2
p3 pool rc2 2/2/0
d1 conv p3 3/1/1 8
rd1 relu d1
d2 conv rd1 3/1/1 8
rd2 relu d2
d3 conv rd2 3/1/1 8
rd3 relu d3
"""
STEM = """
stem conv data 3/2/1 8
start relu stem
"""


def test_a_chain_gives_the_last_activation_of_each_resolution_and_the_first_of_three(tmp_path):
    network = parsed(tmp_path, CHAIN)
    assert chosen(network) == ("rd3", "ra2,rb2,rc2,rd1,rd3")
    assert chosen(network, (83, 512)) == ("rd3", "ra2,rb2,rc2,rd2")  # less than the field of 84
    assert chosen(network, (56, 512)) == ("rd3", "ra2,rb2,rc2")  # and 7 positions are too few


def test_a_layer_that_runs_at_the_first_size_alone_is_none(tmp_path):
    """The pool rounds up and the convolution down, so their maps join where the side is odd."""
    network = parsed(tmp_path, """
a conv data 3/1/1 8
ra relu a
b conv ra 3/2/0 8
p pool ra 3/2/0
both join b+p
rb relu both
""")  # fmt: skip
    assert chosen(network, (65, 65)) == ("rb", "ra,rb")
    assert chosen(network, (65, 65), (33, 65)) == ("rb", "ra,rb")
    assert chosen(network, (65, 65), (32, 65)) == ("rb".replace("b", "a"), "ra")


def test_branches_count_where_they_join(tmp_path):
    """Inception: the concatenation of branches that end with a ReLU; no layer within a branch."""
    network = parsed(tmp_path, STEM + """
one conv start 1/1/0 8
r1 relu one
three conv start 3/1/1 8
r3 relu three
out join r1+r3
p pool out 3/2/0
last conv p 3/1/1 8
end relu last
""")  # fmt: skip
    assert chosen(network) == ("end", "out,end")
    assert chosen(Network(nets.googlenet(16, separator="_"), ops=None)) == (
        "inception_3b_output", "conv1_relu_7x7,conv2_relu_3x3,inception_3b_output,inception_4a_output",
    )  # fmt: skip


def test_fire_modules_give_what_they_join_and_no_classes():
    """Neither the squeezed maps, which are narrow, nor conv10, which has a map for each class."""
    network = Network(nets.squeezenet(16), ops=None)
    assert chosen(network) == ("fire5/concat", "relu_conv1,fire3/concat,fire5/concat,fire7/concat")
    assert chosen(network, (1024, 1024))[1].endswith("fire7/concat")


def test_residual_blocks_after_their_relu():
    """Fields of ResNet-50: res2c 35, res3d 99, res4b 163."""
    network = Network(nets.resnet50(16), ops=None)
    assert chosen(network) == ("res3d_relu", "conv1_relu,res2a_relu,res2c_relu,res3a_relu,res3d_relu,res4b_relu")
    assert chosen(network, (120, 200))[1] == "conv1_relu,res2a_relu,res2c_relu,res3a_relu,res3d_relu"


BLOCK = """
n{0} bn {1}
r{0} relu n{0}
c{0} conv r{0} 3/1/1 8
s{0} sum {1}+c{0}
"""


def test_blocks_that_activate_first_give_their_sums(tmp_path):
    """Of the last one the ReLU that all that follows reads."""
    text = STEM + BLOCK.format(1, "start") + BLOCK.format(2, "s1") + "m bn s2\nrm relu m\ndown conv rm 3/2/1 8\n"
    assert chosen(parsed(tmp_path, text)) == ("rm", "start,rm")
    text += BLOCK.format(3, "down") + BLOCK.format(4, "s3")
    assert chosen(parsed(tmp_path, text)) == ("s4", "start,rm,s4")


def test_a_gate_that_sees_the_whole_picture_does_not_widen_the_field(tmp_path):
    """Squeeze and excitation: a factor for each channel, from a global mean."""
    gate = """
c{0} conv {1} 3/1/1 8
mean{0} Pooling c{0} pooling_param {{ pool: AVE global_pooling: true }}
full{0} InnerProduct mean{0} inner_product_param {{ num_output: 8 }}
sig{0} Sigmoid full{0}
mul{0} Scale c{0}+sig{0} scale_param {{ axis: 0 }}
s{0} sum {1}+mul{0}
r{0} relu s{0}
"""
    text = STEM + gate.format(1, "start") + gate.format(2, "r1") + "down conv r2 3/2/1 8\n" + gate.format(3, "down")
    network = parsed(tmp_path, text)
    assert chosen(network) == ("r3", "start,r2,r3")
    value = network.value("r3")
    fields = network.receptive_fields(local=True)[value], network.receptive_fields()[value]
    assert fields[0].size == (23, 23) and fields[1].size is None  # 3 + 2·4 + 4 + 8


def test_dense_blocks_give_the_activation_of_their_transition(tmp_path):
    dense = "n{0} bn {1}\nr{0} relu n{0}\nc{0} conv r{0} 3/1/1 4\nj{0} join {1}+c{0}\n"
    text = STEM + dense.format(1, "start") + dense.format(2, "j1") + "m bn j2\nrm relu m\nhalf conv rm 1/1/0 8\n"
    text += "p pool half 2/2/0\n" + dense.format(3, "p")
    assert chosen(parsed(tmp_path, text)) == ("j3", "start,rm,j3")


def test_heads_do_not_count(tmp_path):
    """SSD: the detectors of each resolution hang beside the trunk."""
    heads = "".join(f"box{x} conv r{x}2 3/1/1 4\nflat{x} Flatten box{x}\n" for x in "bd")
    assert chosen(parsed(tmp_path, CHAIN + heads)) == ("rd3", "ra2,rb2,rc2,rd1,rd3")


def test_a_decoder_does_not_count(tmp_path):
    """U-Net: what goes around the coarsest map leads only to the way back up."""
    up = """
up Deconvolution rd3 convolution_param { num_output: 8 kernel_size: 2 stride: 2 }
skip join rc2+up
e1 conv skip 3/1/1 8
re1 relu e1
"""
    assert chosen(parsed(tmp_path, CHAIN + up)) == ("rd3", "ra2,rb2,rc2,rd1,rd3")


def test_without_activations_all_layers_serve(tmp_path):
    """LeNet, of one channel, whose only ReLU comes after its maps."""
    network = parsed(tmp_path, """
conv1 conv data 5/1/0 20
pool1 pool conv1 2/2/0
conv2 conv pool1 5/1/0 50
pool2 pool conv2 2/2/0
ip1 InnerProduct pool2 inner_product_param { num_output: 10 }
relu1 relu ip1
""", channels=1)  # fmt: skip
    assert chosen(network) == ("pool2", "conv1,conv2,pool2")


def test_nothing_can_be_chosen(tmp_path):
    network = parsed(tmp_path, "flat Flatten data\nfull InnerProduct flat inner_product_param { num_output: 3 }\n")
    assert choose_layers(network, [(64, 64)]) == {}
    assert choose_layers(parsed(tmp_path, "odd Mystery data\nr relu odd"), [(64, 64)]) == {}


@pytest.mark.skipif(not OPEN_NSFW.exists(), reason=f"{OPEN_NSFW} is not here")
def test_a_real_network():
    network = Network(read_net(str(OPEN_NSFW)), ops=None)
    assert chosen(network, (384, 512), (192, 256), (96, 128)) == (
        "relu_stage1_block3", "relu_1,relu_stage0_block0,relu_stage0_block2,relu_stage1_block0,relu_stage1_block3,"
            "relu_stage2_block1",
    )  # fmt: skip


# In a run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return runs.files(tmp_path_factory.mktemp("files"), nets.squeezenet(16), content=(64, 48), style=(48, 64))


def words(files, *more):
    return [
        *(word for name, path in files.items() for word in (f"--{name}", path)), "--image-size", "64",
        "--num-iterations", "1", "--backend", "numpy", *more,
    ]  # fmt: skip


def test_the_command_line_says_what_was_chosen(files, tmp_path, capsys):
    out = ["--output", str(tmp_path / "out.png")]
    said = {}
    for name, more in {
        "both": [], "content": ["--style-layers", "fire2/concat"], "style": ["--content-layers", "fire2/concat"],
        "none": ["--content-layers", "fire2/concat", "--style-layers", "fire2/concat"], "quiet": ["--quiet"],
    }.items():  # fmt: skip
        assert main(["run", *words(files, *out, *more)]) == 0
        said[name] = [line for line in capsys.readouterr().err.splitlines() if "chosen" in line]
    assert said == {
        "both": ["cvstyle: style from relu_conv1,fire3/concat; content from fire5/concat (chosen from the network; "
                 "--style-layers and --content-layers name others)"],
        "content": ["cvstyle: content from fire5/concat (chosen from the network; --content-layers names others)"],
        "style": ["cvstyle: style from relu_conv1,fire3/concat (chosen from the network; --style-layers names others)"],
        "none": [], "quiet": [],
    }  # fmt: skip
    assert main(["info", "--proto", files["proto"], "--image-size", "64x48"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "default content layers: fire5/concat (chosen from the network for 64×48)",
        "default style layers: relu_conv1,fire3/concat (chosen from the network for 64×48)",
    ]


def test_a_caller_sees_it(files):
    job = Job(files["content"], [files["style"]], files["proto"], files["model"], Options(image_size=64))
    assert job.setup().chosen_layers == {
        "style_layers": ["relu_conv1", "fire3/concat"],
        "content_layers": ["fire5/concat"],
    }
    job.options = Options(image_size=64, style_layers=["fire2/concat"], content_layers=["fire3/concat"])
    assert job.setup().chosen_layers == {}
    assert Job(files["content"], [files["style"]], options=Options(image_size=64)).setup().chosen_layers == {}


def test_a_checkpoint_agrees_on_the_layers(files, tmp_path):
    path = str(tmp_path / "run.npz")
    settings = {"proto": files["proto"], "model": files["model"], "backend": "numpy", "image_size": 64, "seed": 1,
                "num_iterations": 2, "checkpoint": path}  # fmt: skip
    stylize(files["content"], [files["style"]], **settings)
    assert checkpoint.load(path)[0]["settings"]["style_layers"] == ["relu_conv1", "fire3/concat"]
    settings.update(resume=True, num_iterations=3)
    named = {"style_layers": "relu_conv1,fire3/concat", "content_layers": "fire5/concat"}
    assert stylize(files["content"], [files["style"]], **settings, **named).iterations == 3
    with pytest.raises(CheckpointError, match="other style_layers"):
        stylize(files["content"], [files["style"]], **settings, style_layers="fire2/concat")


def test_a_run_of_a_network_without_maps(files, tmp_path):
    path = tmp_path / "full.prototxt"
    path.write_text('input: "data" layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
                    "inner_product_param { num_output: 3 } }")  # fmt: skip
    with pytest.raises(OptionError, match=r"full.prototxt: no layer makes a feature map.*64×48.*content_layers"):
        stylize(files["content"], [files["style"]], proto=path, image_size=64, backend="numpy")
