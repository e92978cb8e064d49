"""
convolution
=========================

Text.
"""

print(1)
