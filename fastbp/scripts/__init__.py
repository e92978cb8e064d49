"""`fastbp run`: the scripts of the book's repository, unmodified, on compiled kernels."""
