"""Repeatable measurements of speed and memory; each prints one JSON object. `python -m benchmarks` runs all of them."""
