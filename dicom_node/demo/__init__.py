"""The product shown and tried: the story, the self-test, the evaluation."""
