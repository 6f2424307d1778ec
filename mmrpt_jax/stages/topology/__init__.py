"""What an experiment needs of a pod, compiled on a machine that has none."""
