"""Orders in a restaurant, made by a small grammar: what is asked for, and what each word is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from texts import Splits, Texts

COURSES = {
    "starter": ("soup", "salad", "bread", "toast"),
    "main": ("pizza", "pasta", "chicken", "roast"),
    "dessert": ("cake", "orange", "sweet", "toast with jam"),
    "drink": ("water", "wine", "beer", "drink"),
}
TAGS = ("pronoun", "verb", "number", "adjective", "noun", "particle")
# Some words are two things: a sweet and a sweet wine, we drink a drink.
ADJECTIVES = ("cold", "warm", "large", "sweet", "orange", "roast")
OPENINGS = ("i want", "we drink", "we roast", "i toast", "you bring")
WORDS = {"a": "number", "two": "number", "three": "number", "with": "particle", "and": "particle"}


@dataclass(frozen=True)
class Order:
    """An order: its text, what each of its words is, and the courses in it, as they come."""

    text: str
    tags: tuple[str, ...]
    courses: tuple[str, ...]


def make_order(draw: random.Random) -> Order:
    """A random order of one to three things."""
    tagged: list[tuple[str, str]] = []
    if draw.random() < 0.7:
        tagged += zip(draw.choice(OPENINGS).split(), ("pronoun", "verb"), strict=True)
    courses = draw.sample(sorted(COURSES), draw.randint(1, 3))
    for course in courses:
        tagged += [("and", "particle")] if course != courses[0] else []
        tagged.append((draw.choice(("a", "two", "three")), "number"))
        if draw.random() < 0.5:
            tagged.append((draw.choice(ADJECTIVES), "adjective"))
        for word in draw.choice(COURSES[course]).split():
            tagged.append((word, WORDS.get(word, "noun")))
    words, tags = zip(*tagged, strict=True)
    return Order(" ".join(words), tags, tuple(courses))


def load_orders(answer: Callable[[Order], Any], count: int = 900, seed: int = 0) -> Splits:
    """Different orders: two thirds to train on, a sixth to validate, a sixth to test.

    Args:
        answer: what is to be said of an order.
        count: how many.
        seed: of the grammar's choices.
    """
    draw, orders = random.Random(seed), {}
    while len(orders) < count:
        order = make_order(draw)
        orders[order.text] = order
    pairs = [(order.text, answer(order)) for order in orders.values()]
    cuts = round(count * 4 / 6), round(count * 5 / 6)
    train, validation, test = pairs[: cuts[0]], pairs[cuts[0] : cuts[1]], pairs[cuts[1] :]
    return Splits(Texts.of(train), Texts.of(validation), Texts.of(test), tokens="words")
