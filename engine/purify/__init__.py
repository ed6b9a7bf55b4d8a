"""Purifiers: name → module. A module has `Config` and `fit(stage, config, generator, watch)` → StateView."""

PURIFIERS = {
    "identity": "engine.purify.identity",
    "projection": "engine.purify.projection",
    "regression": "engine.purify.regression",
    "diffusion": "engine.purify.diffusion",
}
