"""The affine layer x·W + b in a training step of a small network, whose samples lie in lanes.

A vector is then 16 samples of one feature, and is full however few columns W has. All samples of the batch are one
slice, (D, N).
"""

from __future__ import annotations

import numpy as np

from fastbp.ops.contract import Map
from fastbp.ops.state import (
    B_AT,
    B_GIVEN_AT,
    B_SIZE,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    H_IN,
    LANES,
    M_OUT,
    SQUARES_AT,
    W_AT,
    W_GIVEN_AT,
    Z_OUT,
    activate,
    apply_slope,
    scratch_of,
    update_parameters,
)
from fastbp.runtime.elementary import one, zero
from fastbp.runtime.gemm.epilogue import NONE
from fastbp.runtime.gemm.multiply import ROW_GRAIN, Product, boundary, multiply
from fastbp.runtime.gemm.tile import zeros
from fastbp.runtime.jit import kernel
from fastbp.runtime.lanes.tile import PLACES, gradient_height, gradient_tile, tile_sums
from fastbp.runtime.pointers import at, call_at, load, local_memory, pointer_to, record_pointer, shift, store, view
from fastbp.runtime.vectors import sum_of

_places = local_memory(PLACES)


@kernel
def _forward(network_at, number, part, i0, i1):
    """z = b + Wᵀ·h, as b - (-1)·Wᵀ·h."""
    network = view(network_at)
    layer, workspace, S = network.layers[number], network.workspace, i1 - i0
    D, M, has_b = layer[D_IN], layer[M_OUT], layer[B_SIZE] > 0
    h, z = at(workspace, layer[H_IN] + i0 * D), at(workspace, layer[Z_OUT] + i0 * M)
    W, b, minus = at(network.params, layer[W_AT]), at(network.params, layer[B_AT]), at(network.gradients[part], 0)
    store(minus, -one(load(minus)))
    for m in range(M):
        start = load(shift(b, m)) if has_b else zero(load(minus))
        for s in range(S):
            store(shift(z, m * S + s), start)
    _multiply(network_at, part, W, np.intp(1), M, h, z, M, S, D, minus, np.intp(1))
    activate(network_at, number, i0, i1)


@kernel
def _backward(network_at, number, part, i0, i1):
    """The product W·dout, and the slope of the activation before."""
    network = view(network_at)
    layer, workspace, S = network.layers[number], network.workspace, i1 - i0
    D, M, W = layer[D_IN], layer[M_OUT], at(network.params, layer[W_AT])
    d, out = at(workspace, layer[DELTA] + i0 * M), at(workspace, layer[DELTA_BEFORE] + i0 * D)
    _multiply(network_at, part, W, M, np.intp(1), d, out, D, S, M, d, np.intp(0))
    apply_slope(network_at, number - 1, layer[DELTA_BEFORE], i0, i1)


@kernel
def _multiply(network_at, part, a, a_row, a_col, b, c, rows, S, K, rate, subtracts):
    """C (rows, S) = A·B, or C -= rate·A·B where it `subtracts`."""
    zero, one = np.intp(0), np.intp(1)
    product = Product(
        a=a, a_row=a_row, a_col=a_col, source=a, source_row=zero, chosen=zero, b=b, b_row=S, b_col=one, start=zeros(a),
        start_col=zero, start_row=zero, sums=c, has_sums=zero, c=c, c_row=S, i0=zero, i1=rows, j0=zero, j1=S, K=K,
        rate=rate, subtracts=subtracts, epilogue=np.intp(NONE), beside=c, beside_row=zero,
        settings=pointer_to(np.float64, zero), scratch=scratch_of(network_at, part),
    )  # fmt: skip
    call_at(view(network_at).multiply, multiply, (record_pointer(product),))


@kernel
def _gradient(network_at, number, part, parts, N, coefficients):
    """Update a slice of W; row 0 comes with b."""
    network = view(network_at)
    layer, gradients = network.layers[number], network.gradients[part]
    D, M = layer[D_IN], layer[M_OUT]
    i0, i1 = boundary(D, ROW_GRAIN, part, parts), boundary(D, ROW_GRAIN, part + 1, parts)
    x, d = at(network.workspace, layer[H_IN]), at(network.workspace, layer[DELTA])
    size = (i1 - i0) * M
    dW, db = at(gradients, 0), at(gradients, size)
    if size:
        _sum_products(x, d, i0, i1, M, N, dW, at(gradients, size + M))
        squares_at, given = layer[SQUARES_AT] + i0 // ROW_GRAIN, shift(coefficients, layer[W_GIVEN_AT])
        update_parameters(network_at, layer[W_AT] + i0 * M, dW, size, M, squares_at, given)
    if part == 0 and layer[B_SIZE] > 0:
        for m in range(M):
            store(shift(db, m), sum_of((shift(d, m * N),), (), N))
        squares_at, given = layer[SQUARES_AT] - (-D // ROW_GRAIN), shift(coefficients, layer[B_GIVEN_AT])
        update_parameters(network_at, layer[B_AT], db, M, M, squares_at, given)


@kernel
def _sum_products(x, d, i0, i1, M, N, dW, sums):
    """dW (i1 - i0, M) = the sums of x[i, s]·d[m, s] over the samples s, some rows and columns at a time."""
    places, height = _places(pointer_to(np.intp, np.intp(0))), gradient_height(M)
    for i in range(i0, i1, PLACES):
        for q in range(PLACES):
            store(shift(places, q), min(i + q, i1 - 1) * N)
        for m in range(0, M, height):
            used = min(height, M - m)
            for k in range(tile_sums(sums, height)):
                store(shift(sums, k), zero(load(sums)))
            gradient_tile(height, used, shift(d, m * N), N, np.intp(0), x, places, np.intp(0), np.intp(1), N, sums)
            for q in range(min(PLACES, i1 - i)):
                for row in range(used):
                    store(shift(dW, (i - i0 + q) * M + m + row), load(shift(sums, q * height + row)))


IN_LANES = Map(_forward, _backward, _gradient, layout=lambda _: LANES)
