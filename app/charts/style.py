"""What the series of one view have in common: their names, colours and dashes, and the legend that says so once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from app.charts import colours

ROOM = 540  # pixels that a row of the legend may take


@dataclass(frozen=True)
class Style:
    """Names of series in their order, with a colour and a dash each."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    dashes: tuple[tuple[int, ...], ...]

    def colour(self, field: str = "series", *, legend: alt.Legend | None = None) -> alt.Color:
        """The colour channel of a field that holds names."""
        return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(self.names), range=list(self.colours)), legend=legend)

    def dash(self, field: str = "series", *, legend: alt.Legend | None = None) -> alt.StrokeDash:
        """The dash channel of a field that holds names."""
        scale = alt.Scale(domain=list(self.names), range=[list(dash) for dash in self.dashes])
        return alt.StrokeDash(f"{field}:N", scale=scale, legend=legend)


def style(names: Sequence[str], methods: Sequence[str], purifiers: Sequence[str]) -> Style:
    """Series of the same method get shades of its colour, of several purifiers also dashes."""
    return Style(
        tuple(names),
        tuple(colours.of_series(methods)),
        tuple(tuple(dash) for dash in colours.dashes(purifiers, methods)),
    )


def legend(of: Style) -> alt.Chart:
    """Nothing but a legend, for several charts that share a style."""
    columns = max(1, min(5, ROOM // int(6.5 * max(map(len, of.names)) + 44)))
    solid = all(dash == (1, 0) for dash in of.dashes)
    key = alt.Legend(
        orient="none", legendX=0, legendY=0, title=None, direction="horizontal", columns=columns, labelLimit=420,
        symbolType="square" if solid else "stroke", symbolSize=140, symbolStrokeWidth=3, labelFontSize=13, symbolOpacity=1,
        columnPadding=24, rowPadding=6, offset=0, padding=0, titleFontSize=0, titlePadding=0,
    )  # fmt: skip
    chart = alt.Chart(pd.DataFrame({"series": list(of.names)}))
    rows = -(-len(of.names) // columns)
    height = 4 + 21 * rows
    if solid:
        drawn = chart.mark_square(opacity=0).encode(color=of.colour(legend=key))
    else:
        drawn = chart.mark_line(opacity=0).encode(color=of.colour(legend=key), strokeDash=of.dash(legend=key))
    return drawn.properties(height=height).configure_view(strokeWidth=0)


def layered(*layers: alt.Chart) -> alt.LayerChart:
    """`alt.layer` of plain charts."""
    made = alt.layer(*layers)
    assert isinstance(made, alt.LayerChart)
    return made
