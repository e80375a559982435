"""Images in, packed data sets out: once, in parallel, checked, and the same bytes for any number of processes."""
