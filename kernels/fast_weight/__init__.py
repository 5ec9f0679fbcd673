"""The fast-weight memory: a small SwiGLU network per head, written by one Muon step and read by applying it."""
