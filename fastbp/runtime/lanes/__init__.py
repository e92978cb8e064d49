"""Images with the samples of a batch along the vector lanes: correlations with filters, and their gradient."""
