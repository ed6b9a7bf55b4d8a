"""The views: one file each, and one line here. (A folder called `pages` would be picked up by Streamlit by itself.)"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """file: beside this one, without .py; it is the address too, but for the first, which lives at `/`."""

    file: str
    title: str
    icon: str

    @property
    def path(self) -> str:
        """What `st.Page`, `st.page_link` and `st.switch_page` call it."""
        return f"views/{self.file}.py"


VIEWS = (
    View("home", "Home", ":material/home:"),
    View("launch", "Launch", ":material/rocket_launch:"),
    View("runs", "Runs", ":material/list_alt:"),
    View("curves", "Curves", ":material/show_chart:"),
    View("pareto", "Pareto", ":material/trending_up:"),
    View("sessions", "Sessions", ":material/play_circle:"),
    View("states", "States", ":material/scatter_plot:"),
    View("paper", "Paper", ":material/article:"),
    View("data", "Data", ":material/dataset:"),
)
