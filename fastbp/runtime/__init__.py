"""How Python becomes machine code: compiler and cache, threads, pointers, elementary functions, the matrix product.

Nothing here knows an operation or a layer.
"""
