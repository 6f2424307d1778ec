"""State, one step function per method, one loop, checkpoints, metrics."""
