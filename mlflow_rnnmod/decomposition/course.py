"""How far a decomposition is, as one number, and how long what is left of it should take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# What chapters' stages are called at their beginning, and what share of the time they usually take;
# the last is logging, where that follows.
CHAPTERS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("watching",), 0.25),
    (("sizing",), 0.36),
    (("fitting modules",), 0.09),
    (("control",), 0.02),
    (("random control",), 0.10),
    (("likelihoods", "parent"), 0.08),
    (("create", "upload", "finalize", "register"), 0.10),
)
_TRANSLATING = "translating into "
# Stages of a chapter that has several: settings that are usually tried; what logging does.
_STAGES = {1: 3, 6: 4}
# Share of a chapter from which on its own pace says how long it takes.
_TOLD = 0.2


@dataclass(frozen=True)
class Step:
    """Where a decomposition is.

    Args:
        stage: what is being done, with how much of it: ``"watching units 512/5000"``.
        share: of the whole that is done, from 0 to 1; it never falls.
        left: seconds that the rest should take; ``None`` where nothing can be told yet.
    """

    stage: str
    share: float
    left: float | None

    @property
    def words(self) -> str:
        """What is left, no more exactly than it is known; empty where it is not."""
        if self.left is None:
            return ""
        if self.left < 90:
            return f"about {max(5 * round(self.left / 5), 5)} s left"
        if self.left < 5400:
            return f"about {round(self.left / 60)} min left"
        return f"about {round(self.left / 3600)} h left"


class Course:
    """One course through all stages that ``decompose`` and ``log_decomposition`` tell of.

    Chapters that are over count with the time they took; those to come with the time they usually
    take beside these. What is left out (sizing, where the share is given) counts until then.

    Args:
        logs: whether the modules are logged afterwards.
        clock: gives seconds.

    Example:
        >>> seconds = iter([0.0, 10.0, 20.0])
        >>> course = Course(logs=False, clock=lambda: next(seconds))
        >>> course.told("watching units", 1, 2).words
        'about 60 s left'
        >>> course.told("watching units", 2, 2).stage
        'watching units 2/2'
    """

    def __init__(self, logs: bool = True, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._shares = [share for _, share in CHAPTERS[: len(CHAPTERS) - (not logs)]]
        self._took: dict[int, float] = {}
        self._chapter = 0
        self._begun = self._started = self._last = clock()
        self._stages: dict[str, float] = {}
        self._share = 0.0

    def told(self, stage: str, done: int, total: int) -> Step:
        """What a stage tells, as part of the whole."""
        now = self._clock()
        chapter = min(max(self._chapter, _chapter_of(stage)), len(self._shares) - 1)
        if chapter != self._chapter:
            # It began when the one before was last heard of.
            self._took[self._chapter] = self._last - self._begun
            self._chapter, self._begun, self._stages = chapter, self._last, {}
        self._stages = {name: 1.0 for name in self._stages} | {stage: done / max(total, 1)}
        self._last, left = now, self._left(now)
        if left is not None:
            spent = now - self._started
            self._share = max(self._share, spent / max(spent + left, 1e-9))
        return Step(f"{stage} {done}/{total}", self._share, left)

    def _left(self, now: float) -> float | None:
        """Seconds that are left, if what is over tells."""
        shares, spent = self._shares, now - self._begun
        known = [i for i in self._took if self._took[i] > 0]
        own = sum(self._stages.values()) / max(_STAGES.get(self._chapter, 1), len(self._stages))
        # Seconds that a whole decomposition would take at the pace so far.
        pace = sum(self._took[i] for i in known) / (sum(shares[i] for i in known) or 1.0)
        here = shares[self._chapter] * pace
        if own >= _TOLD or not known:
            if not own:
                return None
            here = spent / own
            every = [*known, self._chapter]
            pace = (sum(self._took[i] for i in known) + here) / sum(shares[i] for i in every)
        return max(here - spent, 0.0) + pace * sum(shares[self._chapter + 1 :])


def _chapter_of(stage: str) -> int:
    """The number of the chapter that a stage belongs to; 0 where none is known."""
    if stage.startswith(_TRANSLATING):
        stage = stage.partition(": ")[2]
    for number, (names, _) in enumerate(CHAPTERS):
        if stage.startswith(names):
            return number
    return 0
