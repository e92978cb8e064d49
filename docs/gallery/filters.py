"""
filters
=========================

Text.
"""

print(1)
