"""LVRPO: pretrain, align, evaluate."""
