"""The matrix product: the register tile, the loops around it, and what follows it on a block of the result."""
