"""One answer in the making: logits in, tokens and pieces of text out, until something ends it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtimes.codec import Codec
from runtimes.detokenize import Detokenizer
from runtimes.sampling import Draws, Sampling, choose, log_probability, penalized
from runtimes.stops import Stops

NEW_TOKENS = 256  # where the caller does not say how many


@dataclass(frozen=True)
class Generated:
    """`text` without stop sequence and end token; `tokens`: all that were generated, without the end token.

    `finish`: "end" (the model ended it), "stop" (a stop sequence came), "length" (max_new_tokens), "context"
    (no room for more) or "cancelled". `logprobs`: natural logarithm of each token's probability in the
    model's own distribution, where asked for. `prompt_tokens`: how many the prompt had.
    """

    text: str
    tokens: list[int]
    finish: str
    logprobs: list[float] | None
    prompt_tokens: int


@dataclass(frozen=True)
class Options:
    """How an answer is made; see `Generator.__call__`."""

    sampling: Sampling
    max_new_tokens: int = NEW_TOKENS
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False
    slide: bool = False
    to_the_end: bool = False  # an end token is a token like others


class Answer:
    """One answer in the making: takes logits, gives the next token, and pieces of text."""

    def __init__(self, codec: Codec, prompt: list[int], options: Options, eos: frozenset[int]) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish = ""
        self.pieces: list[str] = []
        self._options, self._eos, self._prompt = options, eos, prompt
        self._draws = Draws(options.seed)
        self._text = Detokenizer(codec, prompt)
        self._stops = Stops(options.stop)
        self._seen: np.ndarray | None = None

    def take(self, logits: np.ndarray) -> int:
        """The next token from logits (vocabulary,); its text, if any is complete, goes to `pieces`."""
        sampling = self._options.sampling
        if sampling.repetition_penalty == 1:
            number = choose(logits, sampling, self._draws)
        else:
            seen = self._seen_in(len(logits))
            number = choose(penalized(logits, seen, sampling.repetition_penalty), sampling, self._draws)
            seen[number] = True
        if number in self._eos and not self._options.to_the_end:
            self.end("end")
            return number
        self.tokens.append(number)
        if self._options.logprobs:
            self.logprobs.append(log_probability(logits, number))
        self._tell(self._stops.push(self._text.push(number)))
        if self._stops.hit:
            self.finish = "stop"
        elif len(self.tokens) >= self._options.max_new_tokens:
            self.end("length")
        return number

    def _seen_in(self, size: int) -> np.ndarray:
        if self._seen is None:
            self._seen = np.zeros(size, bool)
            self._seen[[number for number in self._prompt if number < size]] = True
        return self._seen

    def _tell(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def end(self, finish: str) -> None:
        """The answer is over; what waited for more is told."""
        self._tell(self._stops.push(self._text.flush()))
        self.finish = "stop" if self._stops.hit else finish
        self._tell(self._stops.flush())

    def result(self) -> Generated:
        logprobs = self.logprobs if self._options.logprobs else None
        text = "".join(self.pieces)
        return Generated(text, list(self.tokens), self.finish or "cancelled", logprobs, len(self._prompt))


class Stream:
    """An answer as it comes: iterate over its pieces of text, none of them empty; then `result` is whole.

    `cancel` (from any thread) or `close` ends it after the token at hand; `result` then has what there was.
    """

    def __init__(self, answer: Answer, steps: Iterator[None]) -> None:
        self._answer, self._steps = answer, steps
        self._told = 0
        self._cancelled = threading.Event()

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> str:
        while self._told == len(self._answer.pieces):
            if self._answer.finish:
                raise StopIteration
            if self._cancelled.is_set():
                self._answer.end("cancelled")
                self._steps.close()  # type: ignore[attr-defined]
                continue
            if next(self._steps, self) is self and not self._answer.finish:
                self._answer.end("cancelled")  # the engine failed at an earlier call
        self._told += 1
        return self._answer.pieces[self._told - 1]

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        """Cancel, and take what was ready."""
        self.cancel()
        for _ in self:
            pass

    @property
    def result(self) -> Generated:
        """The whole answer, where it has ended; so far, where it has not."""
        return self._answer.result()
