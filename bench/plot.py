"""Charts as SVG files. matplotlib is imported when the first one is drawn, for it takes half a second."""

from pathlib import Path
from typing import Any

from bench.outcome import Chart
from bench.stats import Spread

COLOURS = ("#5f6b7a", "#2a6fdb", "#2fa37c", "#d9822b", "#8e5bc0")


def draw(chart: Chart, folder: Path) -> Path:
    """Write ``folder/bench-NAME.svg``; the same figures give the same bytes."""
    from matplotlib import rc_context  # noqa: PLC0415 -- see above
    from matplotlib.figure import Figure  # noqa: PLC0415

    path = folder / f"bench-{chart.name}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(max(8.0, 1.5 * len(chart.places)), 4.2), layout="constrained")
        axes = figure.add_subplot()
        _bars(axes, chart)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _bars(axes: Any, chart: Chart) -> None:  # noqa: ANN401 -- matplotlib's own type is not known before its import
    width = 0.8 / len(chart.lines)
    for number, (name, spreads) in enumerate(chart.lines.items()):
        shown = [(place, spread) for place, spread in enumerate(spreads) if spread is not None]
        at = [place + (number - (len(chart.lines) - 1) / 2) * width for place, _ in shown]
        bars = axes.bar(
            at,
            [spread.median for _, spread in shown],
            width,
            label=name,
            color=COLOURS[number % len(COLOURS)],
            yerr=_whiskers([spread for _, spread in shown]),
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axes.bar_label(bars, [_short(spread.median) for _, spread in shown], padding=3, fontsize=7)
    axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_xticks(range(len(chart.places)), chart.places)
    axes.set_ylabel(chart.y_label)
    axes.set_title(chart.title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(chart.lines), loc="upper center", bbox_to_anchor=(0.5, -0.1))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _whiskers(spreads: list[Spread]) -> list[list[float]]:
    return [[spread.median - spread.low for spread in spreads], [spread.high - spread.median for spread in spreads]]
