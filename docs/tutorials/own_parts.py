"""
own_parts
=========================

Text.
"""

print(1)
