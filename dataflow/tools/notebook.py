"""What notebooks show: graphs and pipelines as pictures, profiles as timelines; their text beside it."""

from __future__ import annotations

from typing import Any

from dataflow.frontend.pipeline import Pipeline
from dataflow.graph.nodes import Graph
from dataflow.tools.profile import Profile
from dataflow.tools.svg import graph_svg, timeline_svg

__all__: list[str] = []

Bundle = dict[str, str]


def _of_graph(graph: Graph, **_: Any) -> Bundle:
    picture = graph_svg(graph)
    return {"text/plain": str(graph)} | ({} if picture is None else {"image/svg+xml": picture})


def _of_pipeline(pipeline: Pipeline[..., Any], **_: Any) -> Bundle:
    """Its graph, for which its body runs, if it has not; only the text if that fails, or needs arguments."""
    try:
        graph = pipeline.graph()
    except Exception:
        return {"text/plain": repr(pipeline)}
    return {**_of_graph(graph), "text/plain": repr(pipeline)}


def _of_profile(profile: Profile, **_: Any) -> Bundle:
    return {"text/plain": str(profile), "image/svg+xml": timeline_svg(profile.outer)}


for _kind, _bundle in ((Graph, _of_graph), (Pipeline, _of_pipeline), (Profile, _of_profile)):
    setattr(_kind, "_repr_mimebundle_", _bundle)  # noqa: B010  # a graph knows nothing of drawing
