"""Read captures, choose views, make batches."""
