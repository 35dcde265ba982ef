"""Task `text-generation`: a prompt, or a conversation, goes on; the answer comes in pieces or whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from runtimes.chat import check_messages, parts
from runtimes.codec import Codec
from runtimes.engines import Cache, Decoder
from runtimes.errors import InputError
from runtimes.generated import NEW_TOKENS, Answer, Generated, Options, Stream
from runtimes.sampling import Sampling, sampling_of
from runtimes.stops import check_stops

OUTPUT = "logits"  # (vocabulary,) of the last position
MOST_SEED = 1 << 53  # what JavaScript holds exactly
BATCH = 16  # prompts that are decoded together
# What the bench times: so many tokens of an answer, whether it would end before or not.
BENCH_TOKENS = 32

Message = Mapping[str, str]
Prompt = str | Sequence[Message]


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
        stream = self.stream(prompts, **options)
        for _ in stream:
            pass
        return stream.result

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """The same for one prompt, piece by piece as it is written. Errors come at once, not as pieces."""
        if self._is_many(prompt):
            raise InputError("a stream is of one prompt; give a text, or a list of messages")
        asked = self.options(**options)
        return self.answer(self.encode(prompt, asked.slide), asked, self.begin())

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
            if slide:
                return self.encode_recent(prompt, 1)[0]
            ids = self._encode_messages(prompt)
            advice = "leave out older messages" if len(prompt) > 2 else "shorten it"
        else:
            ids, advice = self._encode_text(prompt), "shorten it"
        if not ids:
            raise InputError("the prompt is empty; give at least one word")
        if len(ids) > most:
            if slide:
                return ids[-(most + 1) // 2 :]
            advice += ", or let it slide (overflow: slide)"
        return self._fitting(ids, advice)

    def _fitting(self, ids: list[int], advice: str) -> list[int]:
        most = self.limits["max_tokens"] - 1
        if len(ids) > most:
            raise InputError(f"the prompt has {len(ids)} tokens, over the {most} that it can have; {advice}")
        return ids

    def _encode_text(self, text: str) -> list[int]:
        self._check_chars(text)
        bos = self.generation["bos"]
        if not text:
            return [] if bos is None else [bos]
        ids = self.codec.encode(text)
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids  # the text had one already

    def _encode_messages(self, messages: Sequence[Message]) -> list[int]:
        told = parts(self._template(), messages)
        self._check_chars("".join(text for text, _ in told))
        return self.codec.encode_parts(told)

    def _template(self) -> Mapping[str, Any]:
        template: Mapping[str, Any] | None = self.generation["template"]
        if template is None:
            raise InputError("this model has no chat template; give it a text to go on from")
        return template

    def _check_chars(self, text: str) -> None:
        most = self.limits["max_chars"]
        if len(text) > most:
            raise InputError(f"the prompt has {len(text)} characters, over {most}; shorten it")

    def encode_recent(self, messages: Sequence[Message], room: int) -> tuple[list[int], list[Any]]:
        """Token ids of the latest messages that leave room for so many tokens, and those messages.

        A question goes with its answer; the system's message stays. Raises InputError where not even the
        last one fits into the context.
        """
        check_messages(self._template(), messages)
        kept = list(messages)
        first = 1 if kept[0]["role"] == "system" else 0
        while len(kept) > first + 2 and not self._leaves(kept, room):
            del kept[first : first + 2]
        return self._fitting(self._encode_messages(kept), "shorten it"), kept

    def _leaves(self, messages: Sequence[Message], room: int) -> bool:
        if sum(len(message["content"]) for message in messages) > self.limits["max_chars"]:
            return False
        return len(self._encode_messages(messages)) + room <= self.limits["max_tokens"]

    def _is_many(self, prompts: Any) -> bool:
        """Whether these are several prompts: a list of texts, or of lists of messages."""
        if isinstance(prompts, str):
            return False
        if not isinstance(prompts, list | tuple):
            raise InputError("a text, a list of messages, or a list of these is expected")
        return not (prompts and all(isinstance(one, Mapping) for one in prompts))

    # Answers

    def begin(self) -> Cache:
        """An empty cache."""
        return self._decoder.begin()

    def answer(self, ids: list[int], options: Options, cache: Cache) -> Stream:
        """The answer to token ids; `cache` is empty, or holds a start of them."""
        answer = Answer(self.codec, ids, options, self._eos)
        return Stream(answer, self._steps(answer, ids, options, cache))

    def chat(self, system: str | None = None, **options: Any) -> Any:
        """A `runtimes.conversation.Conversation`: `for piece in model.chat().say("hello")`."""
        from runtimes.conversation import Conversation

        return Conversation(self, system, **options)

    def _steps(self, answer: Answer, ids: list[int], options: Options, cache: Cache) -> Iterator[None]:
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
        """Up to BATCH prompts, or the bundle's max_batch, are decoded together, each as if it were alone."""
        asked = [replace(options, seed=options.seed + number) for number in range(len(prompts))]
        rows = [self.encode(prompt, options.slide) for prompt in prompts]
        answers = [Answer(self.codec, *row, self._eos) for row in zip(rows, asked, strict=True)]
        most = min(BATCH, self.limits["max_batch"])
        for at in range(0, len(rows), most):
            together = range(at, min(at + most, len(rows)))
            slides = [row for row in together if options.slide and not self._fits(rows[row], options)]
            for row in slides:
                for _ in self._steps(answers[row], rows[row], options, self.begin()):
                    pass
            rest = [row for row in together if row not in slides]
            self._batch([answers[row] for row in rest], [rows[row] for row in rest])
        return [answer.result() for answer in answers]

    def _fits(self, ids: list[int], options: Options) -> bool:
        return len(ids) + options.max_new_tokens <= self.limits["max_tokens"]

    def _batch(self, answers: list[Answer], rows: list[list[int]]) -> None:
        """Each prompt is read by itself, as long as it is; then one token of each at a time."""
        caches = [self.begin() for _ in rows]
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

    def prepare(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt."""
        return [self.encode(text) for text in texts]

    def run(self, prepared: Sequence[list[int]]) -> list[Generated]:
        """BENCH_TOKENS tokens behind each, greedily, over end tokens too."""
        options = Options(Sampling(), BENCH_TOKENS, to_the_end=True)
        found = []
        for ids in prepared:
            stream = self.answer(ids, options, self.begin())
            for _ in stream:
                pass
            found.append(stream.result)
        return found

    def answers(self, texts: Sequence[str]) -> list[Generated]:
        return self.run(self.prepare(texts))

    def outputs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """float32 (vocabulary,): the logits of each prompt's last position."""
        return [self.begin().forward(_row(self.encode(text)))[0].copy() for text in texts]

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
        return self.begin().forward(_row(ids), every=True)[0]

    def continuations(self, texts: Sequence[str], count: int) -> list[list[int]]:
        """The most probable tokens behind each prompt, one after the other: `count`, or up to an end token
        (with it), or to the end of the context."""
        found = []
        for text in texts:
            ids, cache = self.encode(text), self.begin()
            told = [int(cache.forward(_row(ids))[0].argmax())]
            most = min(count, self.limits["max_tokens"] - len(ids))
            while len(told) < most and told[-1] not in self._eos:
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
