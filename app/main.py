"""What Streamlit runs: `python -m streamlit run app/main.py`, or all at once, with a worker: `python -m app`."""

from __future__ import annotations

import streamlit as st
from altair.utils import schemapi

from app import brand, state, words
from app.views import VIEWS
from engine.options import BadInput
from runs_db.database import Unavailable


def main() -> None:
    """Navigation, the badge, and the chosen view."""
    schemapi.disable_debug_mode()  # a chart is checked once, as a whole, not again with every part that it is made of
    st.set_page_config(
        page_title="Fairstate",
        page_icon=brand.ICON,
        layout="wide",
        initial_sidebar_state=216,
        menu_items={"About": brand.ABOUT},
    )
    pages = [
        st.Page(view.path, title=view.title, icon=view.icon, url_path="" if view.file == "home" else view.file,
                default=view.file == "home")
        for view in VIEWS
    ]  # fmt: skip
    st.logo(brand.LOGO, size="large")
    page = st.navigation(pages)
    try:
        state.store()
    except (BadInput, Unavailable) as error:
        _no_database(error)
        return
    with st.sidebar:
        state.badge()
    with state.told():
        page.run()
    state.warm()


def _no_database(error: Exception) -> None:
    st.title("The runs database cannot be used yet")
    st.error(words.plain(str(error)), icon=":material/database:")
    st.markdown("`python -m app` makes the database and brings it up to date by itself. By hand, in a terminal, then reload:")
    st.code("python -m runs_db migrate", language="bash")


main()
