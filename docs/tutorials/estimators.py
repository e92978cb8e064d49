"""
estimators
=========================

Text.
"""

print(1)
