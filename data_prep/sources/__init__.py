"""Where rows come from: one file per format, each a `Source` (see `base`); `detect` finds the right one."""
