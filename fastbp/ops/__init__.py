"""The operations, a file for each family: equation, kernel, NumPy twin, layer class and record.

A record in `contract` says what the engine, graphs, files, estimators and tests need to know of an operation. They find
it there, and none of them has a table of its own.
"""
