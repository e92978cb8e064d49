"""A comparison as a picture: every peer's time as a multiple of the machine's limit, which is a line at 1."""

from __future__ import annotations

from pathlib import Path

from fastbp.benchmark.comparison import PEERS, Comparison, Row
from fastbp.extras import require

_MARKERS = "osD^v<>p"


def save(comparison: Comparison, path: Path) -> None:
    """Draw the comparison to a file of a kind that matplotlib knows by its name."""
    require("matplotlib").use("Agg")
    pyplot = require("matplotlib.pyplot")
    ticker = require("matplotlib.ticker")
    rows = comparison.rows
    figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.75 * len(rows)), layout="constrained")
    for number, peer in enumerate(PEERS):
        points = [(place, row, row.spreads[peer.name]) for place, row in enumerate(rows) if peer.name in row.seconds]
        if not points:
            continue
        places = [place + (number - len(PEERS) / 2) * 0.09 for place, _, _ in points]
        medians = [spread.median / row.limit for _, row, spread in points]
        below = [(spread.median - spread.low) / row.limit for _, row, spread in points]
        above = [(spread.high - spread.median) / row.limit for _, row, spread in points]
        axes.errorbar(
            medians, places, xerr=[below, above], fmt=_MARKERS[number], label=peer.name, color=f"C{number}",
            markersize=9 if number == 0 else 6, capsize=2, zorder=3 if number == 0 else 2,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1.5)
    axes.annotate("the machine's limit", (1, 0), (4, 4), xycoords=("data", "axes fraction"), textcoords="offset points")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("time, as a multiple of what the multiply-adds take at the machine's peak (further left is faster)")
    axes.grid(axis="x", alpha=0.3)
    for place in range(len(rows) - 1):
        axes.axhline(place + 0.5, color="0.9", linewidth=1)
    machine = comparison.machine
    axes.set_title(
        f"{machine['processor']}, {machine['threads']} threads, {machine['peak_flops'] / 1e9:.0f} GFLOP/s in float32"
        f"{', in turns without pauses' if comparison.as_users else ''}",
        fontsize="medium",
    )
    figure.legend(loc="outside lower center", ncols=len(PEERS), frameon=False)
    figure.savefig(path, dpi=120)


def _label(row: Row) -> str:
    unit, name = (1e6, "µs") if row.task.steps else (1e3, "ms")
    value = row.spreads["fastbp"].median * unit
    return (
        f"{row.task.name}\nfastbp {value:,.0f} {name}"
        if value >= 100
        else f"{row.task.name}\nfastbp {value:.1f} {name}"
    )
