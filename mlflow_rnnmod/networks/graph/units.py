"""Which units of a graph belong together, found by following them from node to node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_SEGMENTS = 1_000


@dataclass(frozen=True)
class Segment:
    """Units side by side that are one group's, or nobody's.

    Args:
        key: of the group.
        size: how many units.
    """

    key: int
    size: int


# What stands where in the units of a node.
Layout = tuple[Segment, ...]


@dataclass
class Units:
    """Groups as far as they are found: what meets in a sum becomes one.

    Args:
        above: for each key the key that it has become one with, or itself.
        whole: keys of units that can't be masked.
    """

    above: list[int] = field(default_factory=list)
    whole: set[int] = field(default_factory=set)

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

    def masks(self, segment: Segment) -> bool:
        """Whether a segment's units can be masked."""
        return self.find(segment.key) not in self.whole

    def keep(self, layout: Layout) -> None:
        """These units can't be masked."""
        self.whole.update(self.find(segment.key) for segment in layout)

    def joined(self, layouts: Sequence[Layout]) -> Layout:
        """Units that are added up. Where groups lie across one another none can be masked."""
        first = layouts[0]
        for other in layouts[1:]:
            if [s.size for s in first] != [s.size for s in other]:
                for layout in layouts:
                    self.keep(layout)
                return first
        for other in layouts[1:]:
            for one, two in zip(first, other, strict=True):
                low, high = sorted((self.find(one.key), self.find(two.key)))
                self.above[high] = low
                if high in self.whole:
                    self.whole.add(low)
        return first

    def owned(self, layout: Layout) -> Layout:
        """Units with weights in one vector, which can only be one group's."""
        if len(layout) > 1:
            self.keep(layout)
        return layout
