"""What is done to an instance on its way: a mark is added, or taken off."""
