"""Plots of a page: hand-written SVG whose colours come from the page, so that they are light or dark with it."""
