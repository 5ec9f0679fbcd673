"""The embedded model and its provenance."""
