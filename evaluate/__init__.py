"""Numbers from a checkpoint: the losses of tokens, and the report on them."""
