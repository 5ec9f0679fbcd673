"""Laws and oracles; the folders mirror the code."""
