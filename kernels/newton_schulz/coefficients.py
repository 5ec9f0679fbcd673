"""The constants of the iteration that the released weights were trained with."""

# Muon's quintic a X + b (X X^T) X + c (X X^T)^2 X. Its slope at zero is what inflates small singular values fast; it
# oscillates around one instead of converging, and other coefficients change the trained model by 15-27 %.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5
NORM_EPSILON = 1e-7
