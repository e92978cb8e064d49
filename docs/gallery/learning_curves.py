"""
learning_curves
=========================

Text.
"""

print(1)
