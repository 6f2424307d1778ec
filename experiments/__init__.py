"""Experiments: the launcher, one config file each, and what the README's figures are made with."""
