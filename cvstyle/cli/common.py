"""What several verbs share."""

from __future__ import annotations

import argparse


def comma_list(text: str) -> list[str]:
    """["a", "b"] from "a,b"."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[float]:
    """[3.0, 7.0] from "3,7"."""
    try:
        return [float(part) for part in comma_list(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 3,7") from None


def whole(text: str) -> int:
    """512 from "512", "512.0" or "5.12e2", as Lua reads numbers."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value.is_integer():
            return int(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")


def number(text: str) -> float:
    """3.5 from "3.5"."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def whole_numbers(text: str) -> list[int]:
    """[256, 512] from "256,512"."""
    try:
        found = [whole(part) for part in comma_list(text)]
    except argparse.ArgumentTypeError:
        found = []
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers such as 256,512")
    return found


def add_network_arguments(parser) -> None:
    """--proto and --model, with the reference's spellings."""
    group = parser.add_argument_group("model files")
    group.add_argument(
        "--proto", "--proto-file", metavar="FILE", help="deploy.prototxt (default: the embedded network)"
    )
    group.add_argument("--model", "--model-file", metavar="FILE", help="the .caffemodel that belongs to it")


def add_threads_argument(parser) -> None:
    """--threads, for `limit_threads`."""
    parser.add_argument(
        "--threads", type=_threads, metavar="N", help="threads on the CPU (default: one for each processor)"
    )


def limit_threads(args) -> None:
    """Let backends made from now on use as many threads as were asked for."""
    from ..backends import threads

    threads.limit(args.threads)


def _threads(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of threads")
    return int(text)


def table(rows) -> str:
    """Rows of cells as text in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
