"""The summary of a report's rows: ratios, the slowest layers, README's row, and the steps left."""

from __future__ import annotations

from parts import BEST, COMPILED, PLAIN
from sections import SECTIONS


def after(report) -> None:
    """The results of a part that ended, once."""
    if _whole(report, "peers") and not report.rows(SECTIONS["ratios"]):
        ratios(report)
    if report.rows(SECTIONS["layers"]) and not any("slowest" in note for note in report.content["notes"]):
        slowest(report)


def ratios(report) -> None:
    """Beside PyTorch, size by size."""
    peers = {(r["configuration"], r["network"], r["size"]): r.get("ms") for r in _whole(report, "peers")}
    for ours in _whole(report, "iterations"):
        place = ours["network"], ours["size"]
        found = {name: peers.get((name, *place)) for name in (PLAIN, BEST, COMPILED)}
        report.row(SECTIONS["ratios"], {
            "precision": ours["precision"], "network": place[0], "size": place[1], "ms": ours["ms"],
            **{name: ms / ours["ms"] for name, ms in found.items() if isinstance(ms, float)},
        })  # fmt: skip


def slowest(report) -> None:
    """The two layers of each precision that take longest, and the share of the ceiling that they reach."""
    rows = _whole(report, "layers", "forward, ms")
    for precision in dict.fromkeys(r["precision"] for r in rows):
        own = [r for r in rows if r["precision"] == precision]
        own.sort(key=lambda r: -r["forward, ms"] - r["backward, ms"])
        said = "; ".join(
            f"{r['layer']}, {_share(r, 'share of the ceiling')} forward, {_share(r, 'share of the ceiling, back')} back"
            for r in own[:2]
        )
        report.note(f"The slowest layers in {precision}, and the share of the ceiling that they reach: {said}.")


def readme(report) -> str | None:
    """A row for README's table: the fastest precision that keeps the gradient within 1 %, and the default, at 512."""
    known = {r["what"]: r["found"] for r in report.rows(SECTIONS["machine"]) if "found" in r}
    device = known.get("device", "a GPU").split(",")[0]
    rows = [r for r in report.rows(SECTIONS["ratios"]) if r["network"] == "VGG-19" and r["size"].startswith("512×")]
    rows = [r for r in rows if not r["precision"].endswith("-fast")]
    if not rows:
        return None
    cells = [
        f"| VGG-19, {r['size']}, {device}, {r['precision']} | {r['ms'] / 1e3:.4f} s | "
        f"{_peer(r, PLAIN)} (plain), {_peer(r, BEST)} (best) | {_times(r, PLAIN)}, {_times(r, BEST)} |"
        for r in (rows[0], min(rows, key=lambda r: r["ms"]))
    ]
    return "\n".join(dict.fromkeys(cells))


def end(report, left, seconds, verb) -> None:
    """The last lines of a report."""
    row = readme(report)
    if row:
        report.title("README's row")
        report.line()
        report.line(row)
    if left:
        report.title("Left")
        for number in dict.fromkeys(number for number, _ in left):
            steps = ", ".join(f"{step.section} {step.configuration}" for n, step in left if n == number)
            report.note(f"Part {number}: {steps}.")
        if verb == "quick":
            report.note(f"Go on with: make gpu-quick FROM={left[0][0]}")
    faults = len(report.content["faults"])
    report.note(
        f"{seconds:.0f} s in all; {'nothing' if not faults else f'{faults} step' + 's' * (faults > 1)} failed; "
        f"{'nothing' if not left else f'{len(left)} step' + 's' * (len(left) > 1)} left."
    )
    print(f"written to {report.path('md')}")


def _whole(report, name, column="ms"):
    """Rows that have a time."""
    return [r for r in report.rows(SECTIONS[name]) if isinstance(r.get(column), float)]


def _share(row, name):
    return f"{row[name]:.0%}" if isinstance(row.get(name), float) else "not known"


def _peer(row, name):
    return f"{row[name] * row['ms'] / 1e3:.4f} s" if name in row else "not measured"


def _times(row, name):
    return f"{row[name]:.1f}×" if name in row else "?"
