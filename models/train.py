"""Train the embedded network, which is distilled from a trained teacher, with PyTorch on two cores.

usage: python models/train.py WORK --pictures FOLDER --teacher deploy.prototxt resnet.caffemodel [--form ENTRIES]
           [--stages paint,distil,repaint,distil,write] [--steps 13000] [--until 4000] [--seed 1]

Stages; each resumes from its files in the folder WORK:
    paint    intermediate results of style transfer with the teacher: by-teacher.npy
    distil   1×1 heads on the student predict the teacher's features, and their change with the picture: distil.pt
    repaint  intermediate results of style transfer with the student: by-student.npy
    write    OUTPUT.prototxt and .caffemodel
The first distil stops at step --until of --steps, if a repaint follows.

docs/embedded-network.md says where the teacher and the pictures come from.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from math import cos, pi
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads do not spin
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]  # the training modules, and cvstyle if it is not installed

from training.losses import ChannelScaling, Heads, features_loss, gram_matrices, style_loss  # noqa: E402
from training.networks import Student, Teacher  # noqa: E402
from training.pictures import Batches, Pictures, picture_of, tensor  # noqa: E402

from cvstyle.caffe.write import write_caffemodel, write_prototxt  # noqa: E402

# Entries: c kernel,channels,stride; b residual block's middle channels; m maximum's kernel; =name: a layer for style.
FORM = "c7,64,2=relu1 m3 c3,64,1=relu2_1 b64 b64=relu2_2 c3,96,2=relu3_1 b96=relu3_2 c3,128,2 b64=relu4"
# The teacher's layers for style, which cvstyle chooses for it.
TEACHER_LAYERS = (
    "relu_1", "relu_stage0_block0", "relu_stage0_block2", "relu_stage1_block0", "relu_stage1_block3",
    "relu_stage2_block1",
)  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for the files of the stages")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of .jpg files")
    parser.add_argument("--teacher", nargs=2, required=True, metavar=("PROTO", "MODEL"))
    parser.add_argument("--form", default=FORM, help="entries of the student")
    parser.add_argument("--stages", default="paint,distil,repaint,distil,write")
    parser.add_argument("--paint-rounds", type=int, default=7, help="rounds of paint, of eight pictures each")
    parser.add_argument("--steps", type=int, default=13000, help="steps of distil")
    parser.add_argument("--until", type=int, default=4000, help="steps before repaint")
    parser.add_argument("--rate", type=float, default=4e-3, help="learning rate of distil")
    parser.add_argument("--batch", type=int, default=6, help="crops per step of distil")
    parser.add_argument("--side", type=int, default=128, help="size of the crops in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", default=str(ROOT / "distilled"), help="path of the network without extension")
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    stages = args.stages.split(",")
    for n, stage in enumerate(stages):
        if stage == "distil":
            distil(args, args.until if "repaint" in stages[n:] else args.steps)
        else:
            {"paint": paint, "repaint": repaint, "write": write}[stage](args)


def teacher_of(args) -> Teacher:
    """The teacher with the layers above."""
    return Teacher(*args.teacher, TEACHER_LAYERS).eval().to(memory_format=torch.channels_last)


def pictures_of(args) -> Pictures:
    """The training pictures, with the results of paint and repaint."""
    return Pictures(args.pictures, [np.load(path) for path in sorted(args.work.glob("by-*.npy"))])


def save_atomically(path: Path, save) -> None:
    """Write a file atomically. save: writes to an open file."""
    part = path.with_suffix(".tmp")
    with part.open("wb") as file:
        save(file)
    os.replace(part, path)


# paint


def paint(args, painter=None, name="by-teacher.npy", side=192, at_once=8, steps=48, kept=(2, 6, 14, 28, 48)) -> None:
    """(paintings, states, side, side, 3) uint8: results of style transfer after the `kept` numbers of steps."""
    path = args.work / name
    done = list(np.load(path)) if path.is_file() else []
    painter = painter or teacher_of(args)
    source = Pictures(args.pictures)
    for n in range(len(done) // at_once, args.paint_rounds):
        rng = np.random.default_rng((args.seed, n, 7))
        contents, styles = (tensor(np.stack([source.whole(rng, side) for _ in range(at_once)])) for _ in range(2))
        with torch.no_grad():
            targets = [gram_matrices(f) for f in painter(styles)]
        picture = contents.clone().requires_grad_()
        states = []
        optimiser = torch.optim.Adam([picture], lr=float(rng.choice([4, 8])))
        for step in range(1, steps + 1):
            picture.grad = torch.autograd.grad(style_loss(painter(picture), targets), picture)[0]
            optimiser.step()
            if step in kept:
                states.append(picture_of(picture.detach()))
        done += list(np.stack(states, axis=1))
        save_atomically(path, partial(np.save, arr=np.stack(done)))
        print(f"{name}: {n + 1} of {args.paint_rounds}", flush=True)


def repaint(args) -> None:
    """`paint` with the current student, whose results show its errors."""
    student = student_of(torch.load(args.work / "distil.pt"))
    paint(args, lambda x: list(student(x).values()), "by-student.npy")


def student_of(state) -> Student:
    """The student of a checkpoint of `distil`, in evaluation mode."""
    student = Student(state["form"])
    student.load_state_dict(state["student"])
    return student.eval()


# distil


def heads_for(student: Student, teacher: Teacher) -> Heads:
    """Heads that predict each layer of the teacher from the corresponding layer of the student."""
    with torch.no_grad():
        x = torch.zeros(1, 3, 64, 64)
        student.eval()
        shapes = {name: f.shape for name, f in student(x).items()}
        targets = [f.shape for f in teacher(x)]
    pairs = []
    for target in targets:
        fitting = [name for name, shape in shapes.items() if shape[2:] == target[2:]]
        taken = [name for name, _, _ in pairs]
        if not fitting:
            raise SystemExit(f"no layer of the form {student.form} is as fine as a map of 1/{64 // target[2]}")
        name = next((n for n in fitting if n not in taken), fitting[-1])
        pairs.append((name, shapes[name][1], target[1]))
    return Heads(pairs).to(memory_format=torch.channels_last)


def distil(args, end: int) -> None:
    """The stage distil, up to step `end`."""
    path = args.work / "distil.pt"
    teacher = teacher_of(args)
    student = Student(args.form)
    heads = heads_for(student, teacher)
    parameters = [*student.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=1e-4)
    start = 0
    if path.is_file():
        state = torch.load(path)
        student.load_state_dict(state["student"]), heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    if start >= end:
        return
    batches = Batches(pictures_of(args), (args.seed, start), args.batch, args.side)
    with torch.no_grad():
        scaling = ChannelScaling(teacher(torch.cat([batches.next() for _ in range(8)])))
    start_time = time.perf_counter()
    recent_errors = []
    student.train()
    for step in range(start, end):
        for group in optimiser.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * cos(pi * step / args.steps))
        x = batches.next()
        with torch.no_grad():
            targets = scaling(teacher(x))
        loss, errors = features_loss(heads(student(x)), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        recent_errors.append(errors)
        if (step + 1) % 200 == 0 or step + 1 == end:
            plain, change = np.mean(recent_errors, axis=0).T
            print(f"distil {step + 1}: {time.perf_counter() - start_time:.0f} s, errors", *(f"{e:.3f}" for e in plain),
                  "of changes", *(f"{e:.3f}" for e in change), flush=True)  # fmt: skip
            recent_errors = []
            state = {"form": student.form, "student": student.state_dict(), "heads": heads.state_dict(),
                     "optimiser": optimiser.state_dict(), "step": step + 1}  # fmt: skip
            save_atomically(path, partial(torch.save, state))


# write


def write(args, levels=127) -> None:
    """The stage write."""
    student = student_of(torch.load(args.work / "distil.pt"))
    net = student.net_def("distilled", levels)
    write_prototxt(f"{args.output}.prototxt", net)
    write_caffemodel(f"{args.output}.caffemodel", net)


if __name__ == "__main__":
    main()
