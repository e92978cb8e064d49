"""Floating-point operations of products; a multiplication and an addition count as two."""

import itertools


def of_product(M, K, N):
    """M×K times K×N."""
    return 2 * M * K * N


def of_training(widths, samples):
    """All products of training on so many samples, without the gradient by x, which nothing needs."""
    forward = [of_product(samples, D, M) for D, M in itertools.pairwise(widths)]
    return 3 * sum(forward) - forward[0]
