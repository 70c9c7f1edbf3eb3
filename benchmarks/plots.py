"""A sweep as charts: what an event costs against each thing that was varied. One HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from report import Measurement, Scenario, medians

VARIED = {
    "events": "events per delivery",
    "accounts": "accounts",
    "partitions": "partitions of a topic",
    "connections": "open connections",
}
"""Attributes of Scenario; each gets a chart."""

DASHES = {0: "solid", 1: "solid", 100: "dash"}
"""By events per delivery; 0 is any. A target keeps its colour."""


def page(rounds: Sequence[Measurement]) -> str:
    """The charts, medians of the closed loop; a line per target and size of delivery."""
    found = medians([one for one in rounds if one.loop == "closed"])
    titles = [f"by {title}" for title in VARIED.values()]
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles, vertical_spacing=0.12)
    targets = list(dict.fromkeys(one.target for one in found))
    named: set[str] = set()
    for at, varied in enumerate(VARIED):
        place = {"row": at // 2 + 1, "col": at % 2 + 1}
        lines = _lines(found, varied)
        for (target, events), points in lines.items():
            name = f"{target}, {events} per delivery" if events else f"{target}, any size"
            figure.add_trace(
                go.Scatter(
                    x=[getattr(one.scenario, varied) for one in points],
                    y=[1000 * one.cpu_s_per_1000_events for one in points],
                    name=name,
                    mode="lines+markers",
                    line={"color": qualitative.D3[targets.index(target)], "dash": DASHES.get(events, "dot")},
                    showlegend=name not in named,
                ),
                **place,
            )
            named.add(name)
        measured = sorted({getattr(one.scenario, varied) for points in lines.values() for one in points})
        figure.update_xaxes(type="log", tickvals=measured, ticktext=[f"{value:,}" for value in measured], **place)
    figure.update_yaxes(title="CPU µs per event", rangemode="tozero")
    figure.update_layout(title="What an event costs", template="plotly_white", height=800)
    return str(figure.to_html(include_plotlyjs=True))


def _lines(found: Sequence[Measurement], varied: str) -> dict[tuple[str, int], list[Measurement]]:
    """The measurements in which nothing else differs from the default scenario, by target and events per delivery."""
    lines: dict[tuple[str, int], list[Measurement]] = {}
    for one in sorted(found, key=lambda each: int(getattr(each.scenario, varied))):
        others = [name for name in VARIED if name not in {varied, "events"}]
        if all(getattr(one.scenario, name) == getattr(Scenario(), name) for name in others):
            lines.setdefault((one.target, 0 if varied == "events" else one.scenario.events), []).append(one)
    return {line: points for line, points in lines.items() if len(points) > 1}
