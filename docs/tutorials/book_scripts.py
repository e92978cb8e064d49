"""
book_scripts
=========================

Text.
"""

print(1)
