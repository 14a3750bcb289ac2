"""What a number of nodes can do in a day: constants that were measured, and a model."""
