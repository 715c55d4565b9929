"""The charts of a report, as figures of Plotly, each with its content in words.

Figures have the colors of the light scheme; `DARK` has the color for each of them in the dark scheme, and the page
replaces them.
"""

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.report.curves import FrequencyCurve, Histogram, RankCurve
from costbank.errors import require
from costbank.vocab import TokenStatus, Vocab

__all__ = ["DARK", "Chart", "PlacedTokens", "compared_ranks_chart", "frequency_chart", "histogram_chart",
           "map_by_frequency", "map_by_status", "occurrence_chart", "rank_chart"]  # fmt: skip

_BLUE, _ORANGE, _GREEN, _PURPLE, _GRAY = "#0b62b8", "#b35900", "#157347", "#7d3cc8", "#5f6b76"
_BAND, _WIDE_BAND = "rgba(11,98,184,0.32)", "rgba(11,98,184,0.16)"
_FONT = "system-ui, sans-serif"
_TEXT, _GRID, _PAPER = "#1c2127", "#d5dae0", "#ffffff"
_RAMP = ("#f0a95c", "#df7361", "#b5508a", "#6a3d9a", "#1f1f66")

DARK = {
    _BLUE: "#6db3ff", _ORANGE: "#ffa552", _GREEN: "#56d391", _PURPLE: "#c79bff", _GRAY: "#9aa5b1",
    _BAND: "rgba(109,179,255,0.34)", _WIDE_BAND: "rgba(109,179,255,0.18)",
    _TEXT: "#e4e8ec", _GRID: "#3a424c", _PAPER: "#14181d",
    _RAMP[0]: "#5f5fbf", _RAMP[1]: "#9a5bb8", _RAMP[2]: "#d9699a", _RAMP[3]: "#f59a6e", _RAMP[4]: "#ffe9a8",
}  # fmt: skip
"""The dark color for each light one."""

_STATUS_COLORS = {TokenStatus.OK: _BLUE, TokenStatus.BYTE: _ORANGE, TokenStatus.SPECIAL: _PURPLE,
                  TokenStatus.UNSEEN: _GREEN, TokenStatus.UNUSED: _GRAY}  # fmt: skip
_STATUS_SYMBOLS = {TokenStatus.OK: "circle", TokenStatus.BYTE: "diamond", TokenStatus.SPECIAL: "square",
                   TokenStatus.UNSEEN: "triangle-up", TokenStatus.UNUSED: "x"}  # fmt: skip
_LONGEST_LABEL = 24
_CHART_HEIGHT, _MAP_HEIGHT = 320, 560


@dataclass(frozen=True)
class Chart:
    """A figure and what it shows.

    Attributes:
        key: the id of its element in the page.
        title: what the chart is about.
        alt: what the chart is and its main result, for readers who cannot see it.
        caption: how to read it.
        figure: the data and layout of Plotly, as JSON values.
        height: in CSS pixels.
        zooms: whether the reader can zoom and pan.
    """

    key: str
    title: str
    alt: str
    caption: str
    figure: dict[str, Any]
    height: int = _CHART_HEIGHT
    zooms: bool = False


@dataclass(frozen=True)
class PlacedTokens:
    """The tokens that a map shows: their ids, and their places in the same order."""

    token_ids: Int64[np.ndarray, "chosen"]
    xy: Float32[np.ndarray, "chosen 2"]


def histogram_chart(neighbors: Histogram, pairs: Histogram) -> Chart:
    """The costs of neighbors and of random pairs of tokens."""
    graphs = _graphs()
    traces = [
        graphs.Scatter(x=one.edges, y=np.append(one.shares, one.shares[-1:]), name=name, mode="lines", fill="tozeroy",
                       line={"shape": "hv", "color": color, "width": 2, "dash": dash},
                       hovertemplate="cost from %{x:.3f}: %{y:.2%}")
        for one, name, color, dash in ((neighbors, "neighbors", _BLUE, "solid"),
                                       (pairs, "random pairs", _ORANGE, "dash"))
        if one.count
    ]  # fmt: skip
    parts = [f"{name} {_peak(one)}" for one, name in ((neighbors, "neighbors"), (pairs, "random pairs")) if one.count]
    figure = _figure(traces, "cost", "share", yaxis={"tickformat": ".0%"})
    return Chart(
        "costs-histogram", "Costs of neighbors and of random pairs",
        f"Histogram of costs. The most frequent costs: {'; '.join(parts) or 'none'}.",
        f"{neighbors.count:,} costs of neighbors and {pairs.count:,} of random pairs of different tokens. The farther "
        "apart the two are, the more a loss can tell a near token from a far one.", figure,
    )  # fmt: skip


def rank_chart(curve: RankCurve, of_tokens: str) -> Chart:
    """The cost of the neighbor at each rank."""
    graphs = _graphs()
    invisible = {"width": 0, "color": _BLUE}

    def band(low: np.ndarray, high: np.ndarray, name: str, color: str) -> list[Any]:
        return [
            graphs.Scatter(x=curve.ranks, y=high, mode="lines", line=invisible, showlegend=False, hoverinfo="skip"),
            graphs.Scatter(x=curve.ranks, y=low, mode="lines", line=invisible, fill="tonexty", fillcolor=color,
                           name=name, hoverinfo="skip"),
        ]  # fmt: skip

    traces = [
        *band(curve.percentile_10, curve.percentile_90, "10–90 %", _WIDE_BAND),
        *band(curve.percentile_25, curve.percentile_75, "25–75 %", _BAND),
        graphs.Scatter(x=curve.ranks, y=curve.median, name="median", line={"color": _BLUE, "width": 2},
                       mode="lines" if len(curve.ranks) > 1 else "markers",
                       hovertemplate="neighbor %{x}: median cost %{y:.4f}"),
    ]  # fmt: skip
    last = int(curve.ranks[-1])
    return Chart(
        "rank-curve", "Cost by rank of the neighbor",
        f"Median cost of a token's neighbors by rank: {curve.median[0]:.3f} for the nearest"
        + (f", {curve.median[-1]:.3f} for neighbor {last:,}." if last > 1 else "."),
        f"Rank 1 is the nearest token. The areas hold the middle half and the middle 80 % of {of_tokens}. A flat curve "
        "means that a token's neighbors are about equally far.",
        _figure(traces, "rank of the neighbor", "cost", yaxis={"rangemode": "tozero"}),
    )  # fmt: skip


def compared_ranks_chart(curves: tuple[RankCurve, RankCurve], names: tuple[str, str]) -> Chart:
    """The median cost of the neighbor at each rank in two banks."""
    graphs = _graphs()
    traces = [
        graphs.Scatter(x=curve.ranks, y=curve.median, name=name, line={"color": color, "width": 2, "dash": dash},
                       mode="lines" if len(curve.ranks) > 1 else "markers",
                       hovertemplate="neighbor %{x}: median cost %{y:.4f}")
        for curve, name, color, dash in zip(curves, names, (_BLUE, _ORANGE), ("solid", "dash"), strict=True)
    ]  # fmt: skip
    medians = ", ".join(f"{curve.median[0]:.3f} in {name}" for curve, name in zip(curves, names, strict=True))
    return Chart(
        "compared-ranks", "Cost by rank in both banks", f"Median cost of the nearest token: {medians}.",
        "The median over the tokens of each bank, or over 256 random ones if it has no neighbor table. Banks with the "
        "same neighbors can still differ in how far away these are.",
        _figure(traces, "rank of the neighbor", "median cost", yaxis={"rangemode": "tozero"}),
    )  # fmt: skip


def frequency_chart(key: str, title: str, curve: FrequencyCurve, measure: str, caption: str) -> Chart:
    """A measure of tokens by their count in the corpus."""
    graphs = _graphs()
    # Rounded, because the last digits of sums depend on the number of threads.
    quarter, median, three_quarters = (
        np.round(values, 6) for values in (curve.percentile_25, curve.median, curve.percentile_75)
    )
    hover = [
        f"{_range(low, high)}: {tokens:,} tokens, median {median:.4g}"
        for low, high, tokens, median in zip(curve.least.tolist(), curve.largest.tolist(), curve.tokens.tolist(),
                                             curve.median.tolist(), strict=True)
    ]  # fmt: skip
    invisible = {"width": 0, "color": _BLUE}
    traces = [
        graphs.Scatter(x=curve.middle, y=three_quarters, mode="lines", line=invisible, showlegend=False,
                       hoverinfo="skip"),
        graphs.Scatter(x=curve.middle, y=quarter, mode="lines", line=invisible, fill="tonexty",
                       fillcolor=_BAND, name="25–75 %", hoverinfo="skip"),
        graphs.Scatter(x=curve.middle, y=median, mode="lines+markers", name="median", text=hover,
                       line={"color": _BLUE, "width": 2}, hovertemplate="%{text}"),
    ]  # fmt: skip
    alt = (
        f"Median {measure} by count: {curve.median[0]:.3g} for {_range(int(curve.least[0]), int(curve.largest[0]))}, "
        f"{curve.median[-1]:.3g} for {_range(int(curve.least[-1]), int(curve.largest[-1]))}."
    )
    return Chart(key, title, alt, caption,
                 _figure(traces, "occurrences in the corpus (logarithmic)", measure, xaxis=_log_axis()))  # fmt: skip


def occurrence_chart(bands: list[tuple[str, int]], k: int) -> Chart:
    """How many tokens are in how many neighbor lists."""
    names, totals = [name for name, _ in bands], [total for _, total in bands]
    traces = [
        _graphs().Bar(x=names, y=totals, marker={"color": _BLUE}, hovertemplate="in %{x} lists: %{y:,} tokens", name="")
    ]
    # From half a token, so that a bar of one token is visible.
    vertical = _log_axis() | {"range": [np.log10(0.5), np.log10(max(*totals, 1)) + 0.1]}
    layout = {"xaxis": {"type": "category"}, "yaxis": vertical, "showlegend": False}
    return Chart(
        "occurrences", f"How many neighbor lists a token is in (N{k})",
        f"Tokens by the number of lists of {k} nearest that they are in: {totals[0]:,} in none; at most {names[-1]}.",
        f"A token is in {k} lists on average. Tokens in no list are anti-hubs; tokens in {10 * k:,} lists or more are "
        "hubs. The vertical axis is logarithmic.",
        _figure(traces, f"lists of {k} nearest", "tokens", **layout),
    )  # fmt: skip


def map_by_status(vocab: Vocab, placed: PlacedTokens, about: str) -> Chart:
    """The map, with a color and a shape for each status."""
    statuses, labels = vocab.status[placed.token_ids], _labels(vocab, placed.token_ids)
    traces = []
    for status, color in _STATUS_COLORS.items():
        own = np.flatnonzero(statuses == status)
        if len(own):
            marker = {"color": color, "symbol": _STATUS_SYMBOLS[status], "size": _marker_size(len(statuses))}
            traces.append(_points(placed.xy[own], [labels[i] for i in own], marker, status.name.lower()))
    names = ", ".join(trace.name for trace in traces)
    return _map_chart("map-status", "The map by status", traces, f"Map of tokens with the statuses {names}.",
                      f"{about} Tokens with a low cost to each other are placed near each other; distances across the "
                      "map mean little. Drag to zoom, double-click to reset.")  # fmt: skip


def map_by_frequency(vocab: Vocab, placed: PlacedTokens) -> Chart:
    """The map, with a color for each count in the corpus, on a logarithmic scale."""
    counts = vocab.counts[placed.token_ids]
    ascending = np.argsort(counts, kind="stable")  # frequent tokens are drawn last, so they stay visible
    ids, xy, levels = placed.token_ids[ascending], placed.xy[ascending], np.log10(counts[ascending] + 1.0)
    top = max(float(levels.max(initial=0)), 0.5)
    powers = range(int(top) + 1)
    marker = {
        "color": levels.astype(np.float32), "size": _marker_size(len(ids)), "cmin": 0, "cmax": top,
        "colorscale": [[i / (len(_RAMP) - 1), color] for i, color in enumerate(_RAMP)],
        "colorbar": {"title": {"text": "occurrences", "side": "top"}, "orientation": "h", "x": 0.5, "y": 1.0,
                     "yanchor": "bottom", "thickness": 12, "len": 0.8, "tickangle": 0,
                     "tickvals": [0, *(float(np.log10(10**n + 1)) for n in powers)],
                     "ticktext": ["0", *(_short_power(n) for n in powers)]},
    }  # fmt: skip
    labels = _labels(vocab, ids)
    texts = [f"{label} · {count:,}" for label, count in zip(labels, counts[ascending].tolist(), strict=True)]
    return _map_chart("map-frequency", "The map by frequency", [_points(xy, texts, marker, "tokens", legend=False)],
                      f"Map of tokens colored by their count, from {counts.min():,} to "
                      f"{counts.max():,}.",
                      "The same places; the color is the number of occurrences in the corpus. If frequent tokens lie "
                      "apart from rare ones, the vectors hold frequency as well as meaning.")  # fmt: skip


def _map_chart(key: str, title: str, traces: list[Any], alt: str, caption: str) -> Chart:
    hidden = {"visible": False, "zeroline": False}
    figure = _figure(traces, "", "", xaxis=hidden, yaxis=hidden | {"scaleanchor": "x"}, hovermode="closest",
                     margin={"l": 8, "r": 8, "t": 8, "b": 8})  # fmt: skip
    return Chart(key, title, alt, caption, figure, _MAP_HEIGHT, zooms=True)


def _points(
    xy: Float32[np.ndarray, "tokens 2"], texts: list[str], marker: dict[str, Any], name: str, legend: bool = True
) -> Any:
    x, y = np.ascontiguousarray(xy.T)
    return _graphs().Scattergl(x=x, y=y, text=texts, mode="markers", marker=marker | {"opacity": 0.75}, name=name,
                               showlegend=legend, hovertemplate="%{text}<extra></extra>")  # fmt: skip


def _labels(vocab: Vocab, token_ids: Int64[np.ndarray, "tokens"]) -> list[str]:
    """Texts for hovering. Plotly reads tags and entities in them, so these are escaped; each direction stays apart."""
    return [f"\u2068{escape(_shortened(vocab.display(i)), quote=False)}\u2069" for i in token_ids.tolist()]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _marker_size(points: int) -> int:
    return 3 if points > 10_000 else 4 if points > 2_000 else 7


def _peak(one: Histogram) -> str:
    top = int(np.argmax(one.shares))
    return f"{one.edges[top]:.2f} to {one.edges[top + 1]:.2f} ({one.shares[top]:.0%})"


def _range(low: int, high: int) -> str:
    return f"{low:,} occurrences" if low == high else f"{low:,} to {high:,} occurrences"


def _short_power(exponent: int) -> str:
    """10 to the power of 0 to 17, such as `10k`."""
    return f"{10 ** (exponent % 3)}{('', 'k', 'M', 'G', 'T', 'P')[exponent // 3]}"


def _log_axis() -> dict[str, Any]:
    return {"type": "log", "dtick": 1, "exponentformat": "none", "separatethousands": True}


def _graphs() -> Any:
    return require("plotly.graph_objects", "report")


def _figure(traces: list[Any], x_title: str, y_title: str, **layout: Any) -> dict[str, Any]:
    """The figure as JSON values, with arrays in base64."""
    axis = {"gridcolor": _GRID, "linecolor": _GRID, "zerolinecolor": _GRID, "automargin": True}
    base = {
        "template": "none", "paper_bgcolor": _PAPER, "plot_bgcolor": _PAPER,
        "font": {"color": _TEXT, "size": 13, "family": _FONT},
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44},
        "legend": {"orientation": "h", "itemsizing": "constant", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": _PAPER, "bordercolor": _GRAY, "font": {"color": _TEXT, "family": _FONT}},
        "hovermode": "x", "dragmode": "zoom" if "scaleanchor" in layout.get("yaxis", {}) else False,
    }  # fmt: skip
    axes = {
        "xaxis": axis | {"title": {"text": x_title}} | layout.pop("xaxis", {}),
        "yaxis": axis | {"title": {"text": y_title}} | layout.pop("yaxis", {}),
    }
    # The JSON library is named, because Plotly would otherwise use another one where it is installed.
    return json.loads(_graphs().Figure(traces, base | axes | layout).to_json(engine="json"))
