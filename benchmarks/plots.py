"""A sweep as charts: what an event costs against each thing that was varied. One HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from report import Measurement, Scenario, medians

VARIED = ("events", "accounts", "partitions", "connections")
"""Attributes of Scenario; each gets a chart."""


def page(rounds: Sequence[Measurement]) -> str:
    """The charts, medians of the closed loop; a line per target and size of delivery."""
    found = medians([one for one in rounds if one.loop == "closed"])
    figure = make_subplots(rows=2, cols=2, subplot_titles=[f"by {name}" for name in VARIED])
    colours: dict[str, str] = {}
    for at, varied in enumerate(VARIED):
        for (target, events), points in _lines(found, varied).items():
            name = f"{target}, any size" if varied == "events" else f"{target}, {events} per delivery"
            known = name in colours
            colour = colours.setdefault(name, qualitative.D3[len(colours) % len(qualitative.D3)])
            figure.add_trace(
                go.Scatter(
                    x=[getattr(one.scenario, varied) for one in points],
                    y=[1000 * one.cpu_s_per_1000_events for one in points],
                    name=name,
                    mode="lines+markers",
                    line={"color": colour},
                    showlegend=not known,
                ),
                row=at // 2 + 1,
                col=at % 2 + 1,
            )
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(title="CPU µs per event", rangemode="tozero")
    figure.update_layout(title="What an event costs", template="plotly_white", height=900)
    return str(figure.to_html(include_plotlyjs=True))


def _lines(found: Sequence[Measurement], varied: str) -> dict[tuple[str, int], list[Measurement]]:
    """The measurements in which nothing else differs from the default scenario, by target and events per delivery."""
    lines: dict[tuple[str, int], list[Measurement]] = {}
    for one in sorted(found, key=lambda each: int(getattr(each.scenario, varied))):
        others = [name for name in VARIED if name not in {varied, "events"}]
        if all(getattr(one.scenario, name) == getattr(Scenario(), name) for name in others):
            lines.setdefault((one.target, 0 if varied == "events" else one.scenario.events), []).append(one)
    return {line: points for line, points in lines.items() if len(points) > 1}
