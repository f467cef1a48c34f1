"""What was measured on a card, as tables, beside the goals and the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .setup import Row

# Table 6 of arXiv 2406.01188: GB of the whole framework at 768 x 512 on a card of 80 GB; None: out of memory.
PAPER = {
    "transformer": {32: 25.9, 64: 32.9, 128: 50.6, 256: 73.6, 360: None},
    "mamba": {32: 24.1, 64: 28.6, 128: 43.3, 256: 62.4, 360: 78.8},
}
NOT_MEASURED = "not measured"


def report(results: dict[str, Any]) -> str:
    """Markdown of what `gpu.py` wrote."""
    rows = {name: part["measured"] or [] for name, part in results["parts"].items()}
    about = (rows.get("about") or [{}])[0]
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "cuda", "cudnn", "triton") if name in about)
    tried = any("--tiny" in part["command"] for part in results["parts"].values())
    text = ["Tried in tiny sizes, not those that are named: nothing here is a result.", ""] if tried else []
    text += [f"{about.get('device', 'no device measured')}; {versions}. `{results['command']}`"]
    text += ["", *_goals(rows), "", *_steps(rows), "", *_clips(rows), "", *_scan(rows), "", *_correctness(rows)]
    failed = [f"- {name}: {part['error']}" for name, part in results["parts"].items() if part["error"]]
    return "\n".join(text + (["", "Not finished:", *failed] if failed else [])) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] if rows else []


def _gb(number: float | None) -> str:
    return "-" if number is None else f"{number / 1e9:.1f}"


def _goals(rows: dict[str, list[Row]]) -> list[str]:
    table = []

    def goal(what: str, found: list[Row], value: Callable[[Row], float], shown: str, met: Callable[[float], bool]):
        found = [row for row in found if "left_out" not in row]
        if not found:
            table.append([what, NOT_MEASURED, ""])
        for row in found:
            number = None if "error" in row else value(row)
            said = row["error"] if number is None else shown.format(number)
            table.append([what, said, "yes" if number is not None and met(number) else "no"])

    for temporal in ("transformer", "mamba"):
        found = {(row["frames"], row["size"]): row for row in rows.get(f"limits-{temporal}", [])}
        for (frames, size), limit in {(32, "768x512"): 6e9, (32, "1216x768"): 10e9, (360, "768x512"): 24e9}.items():
            what = f"{temporal}: {frames} frames of {size} within {limit / 1e9:.0f} GB"
            row = [found[frames, size]] if (frames, size) in found else []
            goal(what, row, lambda r: r.get("reserved_bytes", 0) / 1e9, "{:.1f} GB", lambda n, m=limit: n <= m / 1e9)
    step = [r for r in rows.get("steps-transformer-bfloat16", []) if (r["frames"], r["size"]) == (32, "768x512")]
    goal(
        "a guided step in bf16 at 50 % of the matrix products' rate",
        step,
        lambda r: r["share_of_matmul"],
        "{:.0%}",
        lambda n: n >= 0.5,
    )
    clips = [row for name, part in rows.items() if name.startswith("clip-") for row in part if "seconds" in row]
    best = [min(clips, key=lambda row: row["seconds"])] if clips else []
    goal("30 steps of 32 frames of 768x512 in 12 s", best, lambda r: r["seconds"], "{:.1f} s", lambda n: n <= 12)
    scans = [r for r in _scans(rows) if r["implementation"] == "triton" and r["pass"] == "forward"]
    goal("the Triton scan at 60 % of a copy's rate", scans, lambda r: r["share_of_copy"], "{:.0%}", lambda n: n >= 0.6)
    general = {_shape(r): r for r in _scans(rows) if r["implementation"].startswith("general")}
    scans = [r for r in scans if _shape(r) in general]
    goal(
        "the Triton scan 3 times as fast as a general one",
        scans,
        lambda r: general[_shape(r)]["seconds"] / r["seconds"],
        "{:.1f} times",
        lambda n: n >= 3,
    )
    checks = [row for row in rows.get("correctness", []) if "left_out" not in row]
    wrong = [row for row in checks if not row.get("passed")]
    passed = f"{len(checks) - len(wrong)} of {len(checks)}" if checks else NOT_MEASURED
    table.append(["correctness", passed, "" if not checks else "no" if wrong else "yes"])
    return _table(["Goal", "Measured", "Met"], table)


def _scans(rows: dict[str, list[Row]]) -> Iterator[Row]:
    for name, part in rows.items():
        if name.startswith("scan-") and part:
            yield from part["results"]  # type: ignore[call-overload]


def _shape(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("dtype", "rows", "frames", "channels", "pass"))


def _steps(rows: dict[str, list[Row]]) -> list[str]:
    table = []
    for row in (row for name, part in rows.items() if name.startswith("steps-") for row in part):
        start = [str(row[name]) for name in ("temporal", "dtype", "size", "frames")]
        if "error" in row:
            table.append([*start, row["error"], *[""] * 5])
            continue
        known = row["size"] == "768x512" and row["frames"] in PAPER[row["temporal"]]
        paper = PAPER[row["temporal"]][row["frames"]] if known else "-"
        estimate = row["weight_bytes"] + row["estimated_activation_bytes"]
        numbers = [
            f"{row['seconds']:.3f}",
            f"{row['flops'] / row['seconds'] / 1e12:.0f}",
            f"{row['share_of_matmul']:.0%}",
        ]
        memory = [_gb(row.get("peak_bytes")), _gb(estimate), str(paper or "out of memory")]
        table.append([*start, *numbers, *memory])
    head = ["Temporal", "Precision", "Size", "Frames", "Guided step, s", "TFLOP/s", "Of matmul's rate"]
    return _table([*head, "Peak, GB", "Estimated, GB", "Paper (whole framework), GB"], table)


def _clips(rows: dict[str, list[Row]]) -> list[str]:
    table = []
    for row in (row for name, part in rows.items() if name.startswith("clip-") for row in part):
        if "seconds" not in row:
            table.append([row["way"], row.get("error") or row["left_out"], "", "", ""])
            continue
        numbers = [f"{row['seconds']:.1f}", f"{row['first_step_seconds']:.1f}", _gb(row.get("peak_bytes"))]
        table.append([row["way"], *numbers, f"{row['difference']:.1e}"])
    return _table(["A clip of 30 steps", "s", "First step, s", "Peak, GB", "Difference from plain"], table)


def _scan(rows: dict[str, list[Row]]) -> list[str]:
    table = []
    for row in _scans(rows):
        start = [row["implementation"], row["dtype"], str(row["rows"]), str(row["frames"]), row["pass"]]
        numbers = [f"{1e3 * row['seconds']:.2f}", f"{row['bytes_per_second'] / 1e9:.0f}", f"{row['share_of_copy']:.0%}"]
        table.append(start + numbers)
    head = ["Scan", "Precision", "Sequences", "Frames", "Pass", "ms", "GB/s", "Of a copy's rate"]
    return _table(head, table)


def _correctness(rows: dict[str, list[Row]]) -> list[str]:
    table = []
    for row in rows.get("correctness", []):
        said = row.get("error") or row.get("left_out")
        numbers = ["", "", said] if said else [f"{row[name]:.1e}" for name in ("difference", "tolerance")]
        table.append([row["check"], row["dtype"], *(numbers if said else [*numbers, "yes" if row["passed"] else "no"])])
    return _table(["Check", "Precision", "Relative difference", "Allowed", "Passed"], table)
