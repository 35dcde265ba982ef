"""Synthetic news in four topics: easy, but not solvable by length or order."""

import random

TOPICS = {
    "grain": "wheat corn harvest bushels export crop soybean farmers",
    "crude": "oil barrels opec petroleum wells drilling refinery pipeline",
    "ship": "vessel port cargo freight strike harbour tanker containers",
    "trade": "tariffs deficit imports surplus quota negotiations customs dispute",
}
_FILLER = "the a of in said report today prices rise fall new market after before it was by"
FILLER = _FILLER.split(" ")


def sentence(topic: str, rng: random.Random) -> str:
    """A few words of the topic among filler: easy, but not solvable by length or order."""
    words = rng.choices(TOPICS[topic].split(), k=rng.randint(2, 4)) + rng.choices(
        FILLER, k=rng.randint(2, 12)
    )
    rng.shuffle(words)
    return " ".join(words)


def rows(count: int, seed: int) -> tuple[list[str], list[int]]:
    rng = random.Random(seed)
    names = list(TOPICS)
    labels = [index % len(names) for index in range(count)]
    return [sentence(names[label], rng) for label in labels], labels
