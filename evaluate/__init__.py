"""Numbers from a checkpoint: what it writes and how that fares, and the losses of tokens."""
