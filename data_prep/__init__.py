"""Command-line tools that prepare data.

`convert` turns a folder of JSON lines and image archives into records (see `mmrpt_jax.data`), `inspect` shows
what a converted set holds. Each line of a source that cannot be used is listed with its reason, never dropped
in silence.
"""
