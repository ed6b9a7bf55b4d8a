"""Datasets: name → module. A module has `Config`, `load(config)` and `catalogue_size(config)`."""

DATASETS = {
    "synthetic": "engine.data.synthetic",
    "ml-100k": "engine.data.movielens",
}
LOG = "engine.data.table"  # any path to a CSV or Parquet file
