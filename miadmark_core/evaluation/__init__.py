"""How well a mark does against models that the search has never seen."""
