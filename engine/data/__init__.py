"""Datasets: name → module. A module has `Config`, `load(config)` and `catalogue_size(config)`."""

DATASETS = {
    "synthetic": "engine.data.synthetic",
    "ml-100k": "engine.data.movielens",
    "kuairec": "engine.data.kuairec",
    "kuairand-pure": "engine.data.kuairand",
}
ON_FIRST_USE = ("ml-100k",)  # small enough that a run fetches them by itself
FETCHED = ("ml-100k", "kuairec", "kuairand-pure")  # their modules also have `present(folder)`, `fetched(folder, say)` and SIZE
LOG = "engine.data.table"  # any path to a CSV or Parquet file
