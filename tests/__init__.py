"""Tests of what crosses rooms, and of the house itself."""
