"""Find a mark that misleads classifiers. The only inference code that imports torch."""
