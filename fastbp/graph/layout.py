"""The layout of a drawing: nodes in layers from left to right, with few crossings and no overlap.

The method is that of Sugiyama, Tagawa and Toda ("Methods for Visual Understanding of Hierarchical System
Structures", IEEE Trans. SMC 11, 1981). Nodes are in the even layers. Every edge has an item for its label in an odd
layer, and an item in each further layer that it crosses. These items do not overlap, as nodes do not.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP_Y = 12.0
SWEEPS = 24
Y_SWEEPS = 60
# A graph with more items than this gets fewer sweeps, in proportion: nobody can read it, and it would take minutes.
FULL_SWEEPS_UP_TO = 2000


@dataclass
class Item:
    """A node, the label of an edge, or a place where an edge passes."""

    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    before: list[Item] = field(default_factory=list, repr=False)
    after: list[Item] = field(default_factory=list, repr=False)
    position: int = 0


@dataclass
class Edge:
    """An arrow between two nodes, given by their indices, and the size of its label."""

    source: int
    target: int
    width: float
    height: float
    # The layers from its source to its target, at least.
    span: int = 2
    # `place` sets the items that the arrow passes, the label first.
    items: list[Item] = field(default_factory=list, repr=False)


def place(nodes: Sequence[Item], edges: Sequence[Edge]) -> tuple[float, float]:
    """Set the layer and the center (x, y) of all nodes and labels, and return the width and height of the drawing."""
    _assign_layers(nodes, edges)
    items = list(nodes)
    for edge in edges:
        _add_items(edge, nodes)
        items += edge.items
    layers: list[list[Item]] = [[] for _ in range(max(item.layer for item in items) + 1)]
    for item in _in_reading_order(nodes, items):
        layers[item.layer].append(item)
    _uncross(layers)
    _set_y(layers)
    _set_x(layers)
    left = min(item.x - item.width / 2 for item in items)
    top = min(item.y - item.height / 2 for item in items)
    for item in items:
        item.x -= left
        item.y -= top
    return max(item.x + item.width / 2 for item in items), max(item.y + item.height / 2 for item in items)


def _assign_layers(nodes: Sequence[Item], edges: Sequence[Edge]) -> None:
    """Put each node after its last source by the spans of edges, and each first node just before its first target."""
    into: list[list[int]] = [[] for _ in nodes]
    out: list[list[tuple[int, int]]] = [[] for _ in nodes]
    for edge in edges:
        into[edge.target].append(edge.source)
        out[edge.source].append((edge.target, edge.span))
    waiting = [len(sources) for sources in into]
    order = [i for i, count in enumerate(waiting) if count == 0]
    for i in order:
        for j, span in out[i]:
            nodes[j].layer = max(nodes[j].layer, nodes[i].layer + span)
            waiting[j] -= 1
            if waiting[j] == 0:
                order.append(j)
    for i in reversed(order):
        from_first = all(not into[j] for j in into[i]) and len(into[i]) <= 1
        if out[i] and from_first:
            nodes[i].layer = min(nodes[j].layer - span for j, span in out[i])
    first = min(node.layer for node in nodes)
    for node in nodes:
        node.layer -= first


def _add_items(edge: Edge, nodes: Sequence[Item]) -> None:
    source, target = nodes[edge.source], nodes[edge.target]
    edge.items = [Item(edge.width, edge.height, source.layer + 1)]
    edge.items += [Item(0.0, 0.0, layer) for layer in range(source.layer + 2, target.layer)]
    chain = [source, *edge.items, target]
    for left, right in itertools.pairwise(chain):
        left.after.append(right)
        right.before.append(left)


def _in_reading_order(nodes: Sequence[Item], items: Sequence[Item]) -> list[Item]:
    """Return all items from the last nodes back, operands from top to bottom; a tree in this order has no crossing."""
    order: list[Item] = []
    seen: set[int] = set()
    waiting = [item for item in reversed(items) if not item.after and item in nodes]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        order.append(item)
        waiting += reversed(item.before)
    return order


def _uncross(layers: list[list[Item]]) -> None:
    """Reorder layers by the means of their neighbours' positions, and keep the order with the fewest crossings."""
    _number(layers)
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(_sweeps(SWEEPS, layers)):
        if fewest == 0:
            break
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            _sort_by_neighbours(layer, forward)
        _swap_neighbours(layers)
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best
    _number(layers)


def _sweeps(most: int, layers: list[list[Item]]) -> int:
    return max(1, min(most, most * FULL_SWEEPS_UP_TO // sum(len(layer) for layer in layers)))


def _number(layers: list[list[Item]]) -> None:
    for layer in layers:
        for position, item in enumerate(layer):
            item.position = position


def _sort_by_neighbours(layer: list[Item], forward: bool) -> None:
    def mean(item: Item) -> float:
        neighbours = item.before if forward else item.after
        if not neighbours:
            return float(item.position)
        return sum(neighbour.position for neighbour in neighbours) / len(neighbours)

    layer.sort(key=mean)
    for position, item in enumerate(layer):
        item.position = position


def _swap_neighbours(layers: list[list[Item]]) -> None:
    """Swap neighbours in a layer where that removes crossings."""
    improved, rounds = True, 0
    while improved and rounds < 10:
        improved, rounds = False, rounds + 1
        for layer in layers:
            for i in range(len(layer) - 1):
                upper, lower = layer[i], layer[i + 1]
                if _between(upper, lower) > _between(lower, upper):
                    layer[i], layer[i + 1] = lower, upper
                    lower.position, upper.position = i, i + 1
                    improved = True


def _between(upper: Item, lower: Item) -> int:
    """Count the crossings between the edges of two items of a layer when one is above the other."""
    count = 0
    for ours, theirs in ((upper.before, lower.before), (upper.after, lower.after)):
        count += sum(mine.position > other.position for mine in ours for other in theirs)
    return count


def _crossings(layers: list[list[Item]]) -> int:
    count = 0
    for layer in layers:
        passed: list[int] = []
        for item in layer:
            ends = [neighbour.position for neighbour in item.after]
            count += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return count


def crossings(nodes: Sequence[Item], edges: Sequence[Edge]) -> int:
    """Count the crossings of edges after `place`."""
    items = [*nodes, *(item for edge in edges for item in edge.items)]
    layers: list[list[Item]] = [[] for _ in range(max(item.layer for item in items) + 1)]
    for item in sorted(items, key=lambda item: item.position):
        layers[item.layer].append(item)
    return _crossings(layers)


def _set_y(layers: list[list[Item]]) -> None:
    """Move every item towards its neighbours, as far as the order and the distances allow."""
    for layer in layers:
        y = 0.0
        for item in layer:
            item.y = y + item.height / 2
            y += item.height + GAP_Y
    sweeps = _sweeps(Y_SWEEPS, layers)
    for sweep in range(sweeps):
        both, forward = sweep >= sweeps // 2, sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            _move(layer, [item.before * (both or forward) + item.after * (both or not forward) for item in layer])


def _move(layer: list[Item], neighbours: list[list[Item]]) -> None:
    """Set the positions closest to the means of the neighbours that keep order and distances.

    Positions are measured from those of the closest packing. In this measure they must ascend, and pairs out of order
    are merged to their mean (pool adjacent violators).
    """
    packed, y = [], 0.0
    for above, item in zip([None, *layer], layer, strict=False):
        if above is not None:
            y += (above.height + item.height) / 2 + GAP_Y
        packed.append(y)
    blocks: list[list[float]] = []  # [sum of wanted positions, count]
    for item, offset, near in zip(layer, packed, neighbours, strict=True):
        wanted = sum(n.y for n in near) / len(near) if near else item.y
        blocks.append([wanted - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    at = iter([total / count for total, count in blocks for _ in range(int(count))])
    for item, offset in zip(layer, packed, strict=True):
        item.y = next(at) + offset


def _set_x(layers: list[list[Item]]) -> None:
    """Make columns as wide as their widest item, with larger gaps where edges are steep."""
    right = 0.0
    for number, layer in enumerate(layers):
        width = max((item.width for item in layer), default=0.0)
        if number:
            steepest = max((abs(item.y - before.y) for item in layer for before in item.before), default=0.0)
            right += min(10 + 0.25 * steepest, 70)
        for item in layer:
            item.x = right + width / 2
        right += width
