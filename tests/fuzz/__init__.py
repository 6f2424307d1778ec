"""A fuzz target for each parser of untrusted files: `fuzz_one(data)` returns, or the parser has a fault.

`tests/fuzz_test.py` drives them with Hypothesis, a bounded number of examples each. `python -m tests.fuzz TARGET` does
the same with Atheris, where it is installed, for as long as you like.
"""
