"""Comparing fastbp's speed with plain NumPy, other libraries and the machine's limit: what `fastbp bench` runs."""
