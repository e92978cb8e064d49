"""
checkpoints
=========================

Text.
"""

print(1)
