"""What follows a product and touches each of its values once: as one pass over memory."""
