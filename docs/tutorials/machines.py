"""
machines
=========================

Text.
"""

print(1)
