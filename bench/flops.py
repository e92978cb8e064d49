"""Floating-point operations of products; a multiplication and an addition count as two."""

import itertools


def of_product(M, K, N):
    """M×K times K×N."""
    return 2 * M * K * N


def of_training(widths, samples):
    """All products of training on so many samples, without the gradient by x, which nothing needs."""
    forward = [of_product(samples, D, M) for D, M in itertools.pairwise(widths)]
    return 3 * sum(forward) - forward[0]


def of_training_on_images(size, filters, widths, samples):
    """All products of training on so many square images, without the gradient by the images.

    `filters` has FN, C, size and pad of each convolution, and None for a pooling of 2×2; `widths` are those of the
    affine layers.
    """
    forward = []
    for given in filters:
        if given is None:
            size //= 2
            continue
        F, C, window, pad = given
        size += 2 * pad - window + 1
        forward.append(of_product(samples * size * size, C * window * window, F))
    forward += [of_product(samples, D, M) for D, M in itertools.pairwise(widths)]
    return 3 * sum(forward) - forward[0]
