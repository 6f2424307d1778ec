"""How fast and how large: each file measures one thing where it is run, and prints its own numbers."""
