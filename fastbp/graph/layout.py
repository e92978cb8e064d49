"""Where the nodes of a drawing go: layers from left to right, few crossings, nothing on top of anything else.

The method of layers (Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
Structures", IEEE Trans. SMC 11, 1981). Nodes stand in the even layers. Every edge has a place for its label in an
odd layer, and a place to pass in each further layer that it crosses; all of these are kept apart like nodes.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

GAP_Y = 12.0
SWEEPS = 24
Y_SWEEPS = 60
# A graph with more items than this gets fewer sweeps, in proportion: it is past reading, and would take minutes.
UNHURRIED = 2000


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
    """An arrow between two nodes, by their indices, with room for a label."""

    source: int
    target: int
    width: float
    height: float
    # Set by `place`: what the arrow passes, the label first.
    items: list[Item] = field(default_factory=list, repr=False)


def place(nodes: Sequence[Item], edges: Sequence[Edge]) -> tuple[float, float]:
    """Set layer, x and y (of the middle) of all nodes and of all labels; returns the width and height of it all."""
    _assign_layers(nodes, edges)
    items = list(nodes)
    for edge in edges:
        _lay(edge, nodes)
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
    """Each node two layers after the last that it needs; first nodes just before they are needed."""
    into: list[list[int]] = [[] for _ in nodes]
    out: list[list[int]] = [[] for _ in nodes]
    for edge in edges:
        into[edge.target].append(edge.source)
        out[edge.source].append(edge.target)
    waiting = [len(sources) for sources in into]
    order = [i for i, count in enumerate(waiting) if count == 0]
    for i in order:
        for j in out[i]:
            nodes[j].layer = max(nodes[j].layer, nodes[i].layer + 2)
            waiting[j] -= 1
            if waiting[j] == 0:
                order.append(j)
    for i in reversed(order):
        from_first = all(not into[j] for j in into[i]) and len(into[i]) <= 1
        if out[i] and from_first:
            nodes[i].layer = min(nodes[j].layer for j in out[i]) - 2
    first = min(node.layer for node in nodes)
    for node in nodes:
        node.layer -= first


def _lay(edge: Edge, nodes: Sequence[Item]) -> None:
    source, target = nodes[edge.source], nodes[edge.target]
    edge.items = [Item(edge.width, edge.height, source.layer + 1)]
    edge.items += [Item(0.0, 0.0, layer) for layer in range(source.layer + 2, target.layer)]
    chain = [source, *edge.items, target]
    for left, right in itertools.pairwise(chain):
        left.after.append(right)
        right.before.append(left)


def _in_reading_order(nodes: Sequence[Item], items: Sequence[Item]) -> list[Item]:
    """Everything from the last nodes back, operands from top to bottom: a tree drawn so has no crossing."""
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
    return max(1, min(most, most * UNHURRIED // sum(len(layer) for layer in layers)))


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
    """Swap two items next to each other wherever that removes crossings."""
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
    """How many edges of two items of a layer cross when one stands above the other."""
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
    """How many times edges cross, once `place` was called."""
    items = [*nodes, *(item for edge in edges for item in edge.items)]
    layers: list[list[Item]] = [[] for _ in range(max(item.layer for item in items) + 1)]
    for item in sorted(items, key=lambda item: item.position):
        layers[item.layer].append(item)
    return _crossings(layers)


def _set_y(layers: list[list[Item]]) -> None:
    """Pull every item towards its neighbours, as far as the order and the distances allow."""
    for layer in layers:
        y = 0.0
        for item in layer:
            item.y = y + item.height / 2
            y += item.height + GAP_Y
    both: Callable[[Item], list[Item]] = lambda item: item.before + item.after  # noqa: E731
    sweeps = _sweeps(Y_SWEEPS, layers)
    for sweep in range(sweeps):
        neighbours: Callable[[Item], list[Item]]
        if sweep >= sweeps // 2:
            neighbours = both
        elif sweep % 2 == 0:
            neighbours = lambda item: item.before  # noqa: E731
        else:
            neighbours = lambda item: item.after  # noqa: E731
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _pull(layer, neighbours)


def _pull(layer: list[Item], neighbours: Callable[[Item], list[Item]]) -> None:
    """The positions closest to the means of the neighbours that keep order and distances.

    Measured from where each item stands if all are as close as they may be, the wanted positions need only become
    ascending: neighbours out of order are merged to their mean (pool adjacent violators).
    """
    packed, y = [], 0.0
    for above, item in zip([None, *layer], layer, strict=False):
        if above is not None:
            y += (above.height + item.height) / 2 + GAP_Y
        packed.append(y)
    blocks: list[list[float]] = []  # [sum of wanted positions, count]
    for item, offset in zip(layer, packed, strict=True):
        near = neighbours(item)
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
    """Columns as wide as their widest item; more room between them where edges are steep."""
    right = 0.0
    for number, layer in enumerate(layers):
        width = max((item.width for item in layer), default=0.0)
        if number:
            steepest = max((abs(item.y - before.y) for item in layer for before in item.before), default=0.0)
            right += min(10 + 0.25 * steepest, 70)
        for item in layer:
            item.x = right + width / 2
        right += width
