"""One Python file per experiment; its docstring says how to run it and what came out."""
