"""Pages that a person wants to look at: `index.html` of a run, its curves and its meshes."""

from jaxrecon.report.animation import encode_animation, write_animation
from jaxrecon.report.curves import Chart, Series
from jaxrecon.report.page import Metric, Movie, RunPage, Sample, render_page, write_run_page
from jaxrecon.report.run import write_run_report
from jaxrecon.report.viewer import Layer, Scene

__all__ = [
    "Chart",
    "Layer",
    "Metric",
    "Movie",
    "RunPage",
    "Sample",
    "Scene",
    "Series",
    "encode_animation",
    "render_page",
    "write_animation",
    "write_run_page",
    "write_run_report",
]
