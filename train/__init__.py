"""A checkpoint from a dataset: a thin layer over TRL. `running` is the main path."""
