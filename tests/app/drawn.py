"""What the fixture `page` gives to tests: in a module of its own, for every folder of tests has a `conftest`."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

Page = Callable[..., AppTest]
