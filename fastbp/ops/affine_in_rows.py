"""The affine layer x·W + b in a training step and in predictions, for samples in rows."""

from __future__ import annotations

import numpy as np

from fastbp.ops.contract import Map
from fastbp.ops.prediction import row_at
from fastbp.ops.state import (
    B_AT,
    B_GIVEN_AT,
    B_SIZE,
    CHUNK,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    EPILOGUE,
    H_IN,
    H_OUT,
    KEPT,
    M_OUT,
    PENALTY,
    ROWS,
    SETTINGS_AT,
    SLOPE,
    SQUARES_AT,
    STAGED,
    W_AT,
    W_GIVEN_AT,
    WEIGHT_DECAY,
    Z_OUT,
    chosen_rows,
    coefficient,
    gradients_of,
    scratch_of,
    update_parameters,
)
from fastbp.runtime.gemm.epilogue import NONE, finish
from fastbp.runtime.gemm.multiply import ROW_GRAIN, Product, boundary, multiply
from fastbp.runtime.gemm.outer import subtract_outer, subtract_outer_and_multiply
from fastbp.runtime.gemm.rows import product_with_rows
from fastbp.runtime.gemm.stages import multiply_in_stages, share_of_rows
from fastbp.runtime.gemm.tile import zeros
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import at, call_at, itemsize, load, located, pointer_to, record_pointer, shift, store, view
from fastbp.runtime.vectors import REGISTER_BYTES


@kernel
def _forward(network_at, number, part, i0, i1):
    network = view(network_at)
    layer, workspace = network.layers[number], network.workspace
    W, has_b = at(network.params, layer[W_AT]), np.intp(layer[B_SIZE] > 0)
    b = at(network.params, layer[B_AT]) if has_b else zeros(W)
    h, z, out = at(workspace, layer[H_IN]), at(workspace, layer[Z_OUT]), at(workspace, layer[H_OUT])
    settings, (source, chosen) = at(network.settings, layer[SETTINGS_AT]), chosen_rows(network_at, number)
    product_with_rows(
        network.multiply, source, chosen, h, layer[D_IN], W, b, has_b, z, layer[M_OUT], i0, i1, layer[EPILOGUE], out,
        settings, scratch_of(network_at, part),
    )  # fmt: skip


@kernel
def _stage(network_at, number, part, parts, N):
    network = view(network_at)
    layer, workspace, zero, one = network.layers[number], network.workspace, np.intp(0), np.intp(1)
    D, M, W, has_b = layer[D_IN], layer[M_OUT], at(network.params, layer[W_AT]), np.intp(layer[B_SIZE] > 0)
    b, (source, chosen) = at(network.params, layer[B_AT]) if has_b else zeros(W), chosen_rows(network_at, number)
    product = Product(
        a=at(workspace, layer[H_IN]), a_row=D, a_col=one, source=source, source_row=D, chosen=chosen, b=W, b_row=M,
        b_col=one, start=b, start_col=has_b, start_row=zero, sums=b, has_sums=zero, c=at(workspace, layer[Z_OUT]),
        c_row=M, i0=zero, i1=N, j0=zero, j1=M, K=D, rate=b, subtracts=zero, epilogue=layer[EPILOGUE],
        beside=at(workspace, layer[H_OUT]), beside_row=M, settings=at(network.settings, layer[SETTINGS_AT]),
        scratch=scratch_of(network_at, part),
    )  # fmt: skip
    counts = network.counts.ctypes.data
    multiply_in_stages(network.multiply, record_pointer(product), part, parts, counts)


@kernel
def _backward(network_at, number, part, i0, i1):
    """The product with Wᵀ, and the slope of the activation before."""
    network = view(network_at)
    layer, before, workspace = network.layers[number], network.layers[number - 1], network.workspace
    D, M, zero, one = layer[D_IN], layer[M_OUT], np.intp(0), np.intp(1)
    W, d, out = at(network.params, layer[W_AT]), at(workspace, layer[DELTA]), at(workspace, layer[DELTA_BEFORE])
    product = Product(
        a=d, a_row=M, a_col=one, source=d, source_row=zero, chosen=zero, b=W, b_row=one, b_col=M, start=zeros(d),
        start_col=zero, start_row=zero, sums=d, has_sums=zero, c=out, c_row=D, i0=i0, i1=i1, j0=zero, j1=D, K=M,
        rate=d, subtracts=zero, epilogue=before[SLOPE], beside=at(workspace, before[KEPT]), beside_row=D,
        settings=at(network.settings, before[SETTINGS_AT]), scratch=scratch_of(network_at, part),
    )  # fmt: skip
    call_at(network.multiply, multiply, (record_pointer(product),))


@kernel
def _gradient(network_at, number, part, parts, N, coefficients):
    """Update a slice of W, some rows at a time while they are in the cache. Row 0 comes with b."""
    network = view(network_at)
    layer = network.layers[number]
    D, M = layer[D_IN], layer[M_OUT]
    i0, i1 = boundary(D, ROW_GRAIN, part, parts), boundary(D, ROW_GRAIN, part + 1, parts)
    given = shift(coefficients, layer[W_GIVEN_AT])
    decay = coefficient(given, WEIGHT_DECAY) + coefficient(given, PENALTY)
    is_subtracted = network.subtracts == 1 and decay == 0 and D > 1
    rows = D if is_subtracted else max(ROW_GRAIN, CHUNK // M // ROW_GRAIN * ROW_GRAIN)
    for start in range(i0, max(i1, np.intp(D == part == 0)), rows):  # b also where W has no rows
        _update_rows(network_at, number, part, parts, N, start, min(start + rows, i1), coefficients, is_subtracted)


@kernel
def _update_rows(network_at, number, part, parts, N, start, stop, coefficients, is_subtracted):
    """Update rows start:stop of W. Where the gradient `is_subtracted`, it does not reach memory."""
    network = view(network_at)
    layer, gradients = network.layers[number], gradients_of(network_at, part)
    D, M, zero, one = layer[D_IN], layer[M_OUT], np.intp(0), np.intp(1)
    size = 0 if is_subtracted else (stop - start) * M
    dW, db, rate = at(gradients, 0), at(gradients, size), at(gradients, size + M)
    h, d = at(network.workspace, layer[H_IN]), at(network.workspace, layer[DELTA])
    h_row = D
    if number < network.batch[STAGED]:
        share, h_row = share_of_rows(h, N, D, part, parts)
        h = shift(share, -boundary(D, ROW_GRAIN, part, parts))
    out = at(network.params, layer[W_AT]) if is_subtracted else shift(dW, -start * M)
    with_b = np.intp(start == 0 and layer[B_SIZE] > 0)
    gradients[size + M] = coefficient(coefficients, 0)
    if is_subtracted and N == 1 and M >= REGISTER_BYTES // itemsize(d):
        subtract_outer(shift(h, start), d, rate, shift(out, start * M), stop - start, M)
        for j in range(M * with_b):
            store(shift(db, j), load(shift(d, j)) + load(zeros(d)))
    else:
        product = Product(
            a=h, a_row=one, a_col=h_row, source=d, source_row=zero, chosen=zero, b=d, b_row=M, b_col=one,
            start=zeros(d), start_col=zero, start_row=zero, sums=db, has_sums=with_b, c=out, c_row=M, i0=start,
            i1=stop, j0=zero, j1=M, K=N, rate=rate, subtracts=np.intp(is_subtracted), epilogue=np.intp(NONE), beside=d,
            beside_row=zero, settings=coefficients, scratch=scratch_of(network_at, part),
        )  # fmt: skip
        call_at(network.multiply, multiply, (record_pointer(product),))
    if not is_subtracted:
        squares_at, given = layer[SQUARES_AT] + start // ROW_GRAIN, shift(coefficients, layer[W_GIVEN_AT])
        update_parameters(network_at, layer[W_AT] + start * M, dW, size, M, squares_at, given)
    if with_b:
        squares_at, given = layer[SQUARES_AT] + -(-D // ROW_GRAIN), shift(coefficients, layer[B_GIVEN_AT])
        update_parameters(network_at, layer[B_AT], db, M, M, squares_at, given)


@kernel
def _gradient_and_next(network_at, number, coefficients):
    network = view(network_at)
    layer, workspace, gradients = network.layers[number], network.workspace, network.gradients[0]
    D, M, W = layer[D_IN], layer[M_OUT], at(network.params, layer[W_AT])
    h, d, z = at(workspace, layer[H_IN]), at(workspace, layer[DELTA]), at(workspace, layer[Z_OUT])
    db, rate, has_b = at(gradients, 0), at(gradients, M), layer[B_SIZE] > 0
    gradients[M] = coefficient(coefficients, 0)
    if has_b:
        for j in range(M):
            store(shift(db, j), load(shift(d, j)) + load(zeros(d)))
        squares_at, given = layer[SQUARES_AT] + -(-D // ROW_GRAIN), shift(coefficients, layer[B_GIVEN_AT])
        update_parameters(network_at, layer[B_AT], db, M, M, squares_at, given)
    b, next_h = at(network.params, layer[B_AT]) if has_b else zeros(W), shift(h, D)
    for j in range(M):
        store(shift(z, j), load(shift(b, j * has_b)))
    subtract_outer_and_multiply(h, d, rate, W, D, M, next_h, z)
    finish(
        layer[EPILOGUE], z, M, np.intp(1), M, at(workspace, layer[H_OUT]), M, at(network.settings, layer[SETTINGS_AT])
    )
    for i in range(D):
        store(shift(h, i), load(shift(next_h, i)))


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    layer, zero = row_at(layer_at), np.intp(0)
    W, has_b = located(h, layer[W_AT]), np.intp(layer[B_AT] != 0)
    b = located(h, layer[B_AT]) if has_b else zeros(h)
    D, M, word, settings = layer[D_IN], layer[M_OUT], layer[EPILOGUE], pointer_to(np.float64, layer[SETTINGS_AT])
    product_with_rows(multiply_at, h, zero, h, D, W, b, has_b, out, M, zero, N, word, out, settings, scratch)


IN_ROWS = Map(
    _forward, _backward, _gradient, _predict, layout=lambda _: ROWS, gathers=True, stage=_stage,
    gradient_and_next=_gradient_and_next,
)  # fmt: skip
