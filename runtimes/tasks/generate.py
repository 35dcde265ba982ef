"""Task `text-generation`: a prompt, or a conversation, goes on; the answer comes in pieces or whole."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtimes.chat import parts
from runtimes.codec import Codec
from runtimes.detokenize import Detokenizer
from runtimes.engines import Cache, Decoder
from runtimes.errors import InputError
from runtimes.sampling import Draws, Sampling, choose, log_probability, penalized, sampling_of
from runtimes.stops import Stops, check_stops

OUTPUT = "logits"  # (vocabulary,) of the last position
NEW_TOKENS = 256  # where the caller does not say how many
MOST_SEED = 1 << 53  # what JavaScript holds exactly
BATCH = 16  # prompts that are decoded together
# What the bench times: so many tokens of an answer, whether it would end before or not.
BENCH_TOKENS = 32

Message = Mapping[str, str]
Prompt = str | Sequence[Message]


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


class _Answer:
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

    def __init__(self, answer: _Answer, steps: Iterator[None]) -> None:
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
            next(self._steps, None)
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


class Generator:
    """A callable text generator on any decoding engine."""

    def __init__(
        self,
        decoder: Decoder,
        codec: Codec,
        limits: dict[str, int],
        generation: dict[str, Any],
        about: dict[str, Any],
    ) -> None:
        self.limits = limits
        self.codec = codec
        self.generation = generation
        self._decoder = decoder
        self._eos = frozenset(generation["eos"])
        self._about = about

    def __call__(self, prompts: Any, **options: Any) -> Any:
        """Go on from a prompt (a text as it is, or a list of messages, which the chat template renders), or
        from each of a list of prompts: a Generated, or a list of them.

        max_new_tokens; temperature, top_k, top_p, min_p, repetition_penalty as in
        `runtimes.sampling.Sampling` (not given: what the bundle says, as a rule the best token always);
        stop: a text or texts that end the answer; seed: the same draws again (the n-th prompt of a list
        takes seed + n); logprobs; overflow: "error" (a prompt that fills the context is one, an answer that
        reaches its end finishes as "context") or "slide" (the older half is forgotten, and of messages the
        oldest, not the system's).

        Raises InputError for an empty prompt, one over the context, and options out of their bounds.
        """
        if self._is_many(prompts):
            return self._many(list(prompts), self.options(**options))
        return self._alone(self.options(**options), prompts).result

    def _alone(self, options: Options, prompt: Prompt) -> Stream:
        stream = self._stream(prompt, options)
        for _ in stream:
            pass
        return stream

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """The same for one prompt, piece by piece as it is written. Errors come at once, not as pieces."""
        if self._is_many(prompt):
            raise InputError("a stream is of one prompt; give a text, or a list of messages")
        return self._stream(prompt, self.options(**options))

    def options(
        self, max_new_tokens: int | None = None, stop: str | Sequence[str] = (), seed: int = 0,
        logprobs: bool = False, overflow: str = "error", **sampling: Any,
    ) -> Options:  # fmt: skip
        """Checked options, the bundle's defaults in them. Raises InputError."""
        most = NEW_TOKENS if max_new_tokens is None else max_new_tokens
        if type(most) is not int or most < 1:
            raise InputError(f"max_new_tokens must be a whole number of 1 or more, not {most!r}")
        if type(seed) is not int or not 0 <= seed < MOST_SEED:
            raise InputError(f"seed must be a whole number from 0 to {MOST_SEED - 1}, not {seed!r}")
        if overflow not in ("error", "slide"):
            raise InputError(f"overflow must be error or slide, not {overflow!r}")
        chosen = sampling_of(self.generation["sampling"], **sampling)
        return Options(chosen, most, check_stops(stop), seed, bool(logprobs), overflow == "slide")

    # Prompts to tokens

    def encode(self, prompt: Prompt, slide: bool = False) -> list[int]:
        """Token ids of a prompt, with room for one more in the context; `slide` makes that room.

        Raises InputError for an empty prompt, or one that fills the context.
        """
        most = self.limits["max_tokens"] - 1
        if not isinstance(prompt, str):
            ids, room = (
                self._encode_messages(list(prompt), most if slide else None),
                "leave out older messages",
            )
        else:
            ids, room = self._encode_text(prompt), "shorten it"
        if not ids:
            raise InputError("the prompt is empty; give at least one word")
        if len(ids) > most:
            if slide and isinstance(prompt, str):
                return ids[-(most + 1) // 2 :]
            raise InputError(
                f"the prompt has {len(ids)} tokens, over the {most} that the model takes; {room}"
                + ("" if slide else ', or let it slide (overflow="slide")')
            )
        return ids

    def _encode_text(self, text: str) -> list[int]:
        if len(text) > self.limits["max_chars"]:
            raise InputError(
                f"the prompt has {len(text)} characters, over {self.limits['max_chars']}; shorten it"
            )
        bos = self.generation["bos"]
        if not text:
            return [] if bos is None else [bos]
        ids = self.codec.encode(text)
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids  # the text had one already

    def _encode_messages(self, messages: list[Message], most: int | None) -> list[int]:
        """With `most`: the oldest messages behind the system's are left out until it fits."""
        template = self.generation["template"]
        if template is None:
            raise InputError("this model has no chat template; give it a text to go on from")
        told = parts(template, messages)
        if sum(len(text) for text, _ in told) > self.limits["max_chars"] and most is None:
            raise InputError(f"the messages have over {self.limits['max_chars']} characters; leave some out")
        ids = self.codec.encode_parts(told)
        first = 1 if messages[0]["role"] == "system" else 0
        while most is not None and len(ids) > most and len(messages) > first + 2:
            del messages[first : first + 2]  # a question with its answer
            ids = self.codec.encode_parts(parts(template, messages))
        return ids

    def _is_many(self, prompts: Any) -> bool:
        """Whether these are several prompts: a list of texts, or of lists of messages."""
        if isinstance(prompts, str):
            return False
        if not isinstance(prompts, list | tuple):
            raise InputError("a text, a list of messages, or a list of these is expected")
        return not (prompts and all(isinstance(one, Mapping) for one in prompts))

    # Answers

    def _stream(self, prompt: Prompt, options: Options) -> Stream:
        ids = self.encode(prompt, options.slide)
        answer = _Answer(self.codec, ids, options, self._eos)
        return Stream(answer, self._steps(answer, ids, options, self._decoder.begin()))

    def _steps(self, answer: _Answer, ids: list[int], options: Options, cache: Cache) -> Iterator[None]:
        """One token a step; `cache` is empty, or holds a start of `ids`."""
        read = ids[int(cache.lengths[0]) :]
        while True:
            number = answer.take(cache.forward(_row(read))[0])
            yield
            read = [number]
            if not answer.finish and int(cache.lengths[0]) + 1 >= self.limits["max_tokens"]:
                if not options.slide:
                    answer.end("context")
                else:  # positions start anew, with the younger half of all tokens
                    read = (ids + answer.tokens)[-(self.limits["max_tokens"] // 2) :]
                    cache.rewind(0)
            if answer.finish:
                return

    def _many(self, prompts: list[Prompt], options: Options) -> list[Generated]:
        """Up to BATCH prompts are decoded together, each as if it were alone."""
        asked = [replace(options, seed=options.seed + number) for number in range(len(prompts))]
        rows = [self.encode(prompt, options.slide) for prompt in prompts]
        answers = [_Answer(self.codec, *row, self._eos) for row in zip(rows, asked, strict=True)]
        for at in range(0, len(rows), BATCH):
            together = range(at, min(at + BATCH, len(rows)))
            slides = [row for row in together if options.slide and not self._fits(rows[row], options)]
            for row in slides:
                for _ in self._steps(answers[row], rows[row], options, self._decoder.begin()):
                    pass
            rest = [row for row in together if row not in slides]
            self._batch([answers[row] for row in rest], [rows[row] for row in rest])
        return [answer.result() for answer in answers]

    def _fits(self, ids: list[int], options: Options) -> bool:
        return len(ids) + options.max_new_tokens <= self.limits["max_tokens"]

    def _batch(self, answers: list[_Answer], rows: list[list[int]]) -> None:
        """Each prompt is read by itself, as long as it is; then one token of each at a time."""
        caches = [self._decoder.begin() for _ in rows]
        found = [cache.forward(_row(ids))[0] for cache, ids in zip(caches, rows, strict=True)]
        logits, cache, at_work = found, None, list(range(len(rows)))
        while at_work:
            numbers = [answers[row].take(one) for row, one in zip(at_work, logits, strict=True)]
            for row in at_work:
                full = len(rows[row]) + len(answers[row].tokens) >= self.limits["max_tokens"]
                if full and not answers[row].finish:
                    answers[row].end("context")
            left = [place for place, row in enumerate(at_work) if not answers[row].finish]
            if not left:
                return
            if cache is None:
                cache = self._decoder.join([caches[place] for place in left])
                caches.clear()
            elif len(left) < len(at_work):
                cache.keep(left)
            at_work = [at_work[place] for place in left]
            logits = list(cache.forward(np.array([[numbers[place]] for place in left], np.int64)))

    # What gate and bench ask of every task; an input is a text here.

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int64 token ids of each prompt."""
        return [np.array(self.encode(text), np.int64) for text in texts]

    def outputs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """float32 (vocabulary,): the logits of each prompt's last position."""
        return [self._decoder.begin().forward(_row(self.encode(text)))[0].copy() for text in texts]

    def verdicts(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> list[Any]:
        """The most probable next token of each prompt."""
        return [int(row.argmax()) for row in outputs]

    def sureness(self, texts: Sequence[str], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(texts,): by how much the most probable next token leads the second, in logits."""
        second, best = np.sort(np.stack([np.partition(row, -2)[-2:] for row in outputs]), axis=1).T
        return np.asarray(best - second)

    def metric(self, texts: Sequence[str], outputs: Sequence[np.ndarray], truths: Sequence[Any]) -> None:
        """A text is judged as a whole, not by its last position: see `every`, of which perplexity is made."""

    def every(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (len(ids), vocabulary): logits of every position. Raises InputError over the context."""
        if not 0 < len(ids) <= self.limits["max_tokens"]:
            raise InputError(f"{len(ids)} tokens; give 1 to {self.limits['max_tokens']}")
        return self._decoder.begin().forward(_row(ids), every=True)[0]

    def continuations(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """The most probable tokens behind each prompt, one after the other: `count`, or up to an end token
        (with it)."""
        found = []
        for text in texts:
            ids, cache = self.encode(text), self._decoder.begin()
            told = [int(cache.forward(_row(ids))[0].argmax())]
            while len(told) < count and told[-1] not in self._eos:
                told.append(int(cache.forward(_row(told[-1:]))[0].argmax()))
            found.append(told)
        return found

    def describe(self) -> dict[str, Any]:
        """bundle, task, variant, precision, engine, engine_version, threads, providers really used;
        cache_bytes_per_token: what each token of prompt and answer takes beside the weights."""
        return {**self._about, **self._decoder.describe()}


def _row(ids: Sequence[int]) -> np.ndarray:
    return np.array([ids], np.int64)


def open(
    decoder: Decoder, codec: Codec, labels: list[str], limits: dict[str, int], about: dict[str, Any]
) -> Generator:
    about = dict(about)
    generation = about.pop("generation")
    return Generator(decoder, codec, limits, generation, about)
