"""Which units of a graph belong together, found by following them from node to node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_SEGMENTS = 1_000


@dataclass(frozen=True)
class Segment:
    """Units side by side that are one group's, or nobody's.

    Args:
        key: of the group.
        size: how many units.
        block: columns of each, side by side: a channel that is flattened has one for each place.
    """

    key: int
    size: int
    block: int = 1

    @property
    def columns(self) -> int:
        """Of all its units."""
        return self.size * self.block


# What stands where in the columns of a node.
Layout = tuple[Segment, ...]


@dataclass
class Units:
    """Groups as far as they are found: what meets in a sum becomes one.

    Args:
        above: for each key the key that it has become one with, or itself.
        whole: keys of units that can't be masked.
        halves: keys whose units turned out to be two groups', with how many are the first's.
        parted: whether units may turn out to be several groups'. In dense networks over vectors,
            whose files are older, those that lie across one another can't be masked instead.
    """

    above: list[int] = field(default_factory=list)
    whole: set[int] = field(default_factory=set)
    halves: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    parted: bool = True

    def new(self, size: int, whole: bool = False) -> Layout:
        """Units that were not there before; ``whole`` ones can't be masked."""
        key = len(self.above)
        self.above.append(key)
        if whole:
            self.whole.add(key)
        return (Segment(key, size),)

    def find(self, key: int) -> int:
        """The one key of all that have become one."""
        while self.above[key] != key:
            self.above[key] = self.above[self.above[key]]
            key = self.above[key]
        return key

    def resolved(self, layout: Layout) -> Layout:
        """The units as they are grouped by now."""
        return tuple(self._resolved(layout))

    def _resolved(self, layout: Layout) -> Iterator[Segment]:
        for segment in layout:
            key = self.find(segment.key)
            if key not in self.halves:
                yield Segment(key, segment.size, segment.block)
                continue
            first, second, size = self.halves[key]
            rest = segment.size - size
            halves = Segment(first, size, segment.block), Segment(second, rest, segment.block)
            yield from self._resolved(halves)

    def keep(self, layout: Layout) -> None:
        """These units can't be masked."""
        self.whole.update(segment.key for segment in self._resolved(layout))

    def joined(self, layouts: Sequence[Layout]) -> Layout:
        """Units that are added up, each with its like.

        Where one layout has the units of several groups beside those of one of another, that one
        is several groups.
        """
        for other in layouts[1:]:
            if not self._join(layouts[0], other):
                for layout in layouts:
                    self.keep(layout)
                break
        return self.resolved(layouts[0])

    def _join(self, one: Layout, other: Layout) -> bool:
        """Whether units of two layouts could be joined."""
        if not self.parted and [s.size for s in one] != [s.size for s in other]:
            return False
        offset = 0
        while offset < sum(segment.columns for segment in one):
            first, second = (self.at(layout, offset) for layout in (one, other))
            if first is None or second is None or first.block != second.block:
                return False
            size = min(first.size, second.size)
            for segment in (first, second):
                if segment.size > size:
                    self._halve(segment, size)
            low, high = sorted(self.find(self._first(segment, size)) for segment in (first, second))
            if low != high:
                self.above[high] = low
                if high in self.whole:
                    self.whole.add(low)
            offset += size * first.block
        return True

    def at(self, layout: Layout, offset: int) -> Segment | None:
        """The units whose first column is this one; ``None`` where none begins there."""
        for segment in self._resolved(layout):
            if offset == 0:
                return segment
            offset -= segment.columns
        return None

    def _first(self, segment: Segment, size: int) -> int:
        """The key of a segment's first units, where it was halved."""
        key = self.find(segment.key)
        return self.find(self.halves[key][0]) if segment.size > size else key

    def _halve(self, segment: Segment, size: int) -> None:
        """Let the first units of a segment be another group than the rest."""
        key = self.find(segment.key)
        if key in self.halves:  # by the other layout, which holds the same units
            return
        whole = key in self.whole
        (first,), (second,) = (
            self.new(size, whole),
            self.new(segment.size - size, whole),
        )
        self.halves[key] = first.key, second.key, size

    def part(self, layout: Layout, start: int, stop: int) -> Layout:
        """The columns from ``start`` to before ``stop``.

        Where that takes units apart, whose columns lie side by side, they can't be masked.
        """
        found: list[Segment] = []
        for edge in (start, stop):
            self._cut_at(layout, edge)
        offset = 0
        for segment in self.resolved(layout):
            low, high = max(start, offset), min(stop, offset + segment.columns)
            if low < high:
                if (low - offset) % segment.block or (high - offset) % segment.block:
                    self.whole.add(segment.key)
                    found += self.new(high - low, whole=True)
                else:
                    found.append(segment)
            offset += segment.columns
        return tuple(found)

    def _cut_at(self, layout: Layout, edge: int) -> None:
        for segment in self.resolved(layout):
            if 0 < edge < segment.columns and edge % segment.block == 0:
                self._halve(segment, edge // segment.block)
            edge -= segment.columns

    def spread(self, layout: Layout, block: int) -> Layout:
        """Units with so many columns for each one that they had."""
        return tuple(Segment(s.key, s.size, s.block * block) for s in self.resolved(layout))

    def gathered(self, layout: Layout, block: int) -> Layout:
        """Units with one column for so many that they had; those that had fewer can't be masked."""
        found: list[Segment] = []
        resolved = self.resolved(layout)
        if all(segment.block % block == 0 for segment in resolved):
            return tuple(Segment(s.key, s.size, s.block // block) for s in resolved)
        self.keep(layout)
        columns = sum(segment.columns for segment in resolved) // block
        found += self.new(columns, whole=True)
        return tuple(found)
