"""Jobs that are owed, kept until they are done."""
