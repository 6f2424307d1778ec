"""Measurements of single parts: each file prints its own numbers."""
