"""
vanishing_gradients
=========================

Text.
"""

print(1)
