"""Which tasks, in what order, with what parameters, and what counts as failed."""
