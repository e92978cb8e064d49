"""
decision_boundaries
=========================

Text.
"""

print(1)
