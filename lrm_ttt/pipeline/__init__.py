"""Front doors: reconstruct, refine, render a path."""
