"""Benchmarks of fastbp for asv, and the table of cases that they share with the tests."""
