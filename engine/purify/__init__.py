"""Purifiers: name → module. A module has `Config` and `fit(stage, config, generator, watch)` → StateView."""

PURIFIERS = {
    "identity": "engine.purify.identity",
    "projection": "engine.purify.projection",
    "regression": "engine.purify.regression",
    "diffusion": "engine.purify.diffusion",
    "rce": "engine.purify.rce",
    "tce": "engine.purify.tce",
    "bod": "engine.purify.bod",
}
