"""Decoders on plain ONNX Runtime: a graph that takes and gives the keys and values of all tokens before.

Two kinds of graph, by the variant's `cache` entry. `shared`: its GroupQueryAttention writes new keys and
values into the buffer that it reads the old ones from (past and present bound to the same memory), so that a
token copies nothing; a row holds its tokens from the front, and the mask says how many. Not shared: it puts
new ones behind the old ones in a new tensor, as Optimum exports graphs, GPT-2's too; shorter rows of a batch
are padded on the left.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.engines.onnx import first_line, onnxruntime, start
from runtimes.errors import EngineError

CHUNK = (
    128  # tokens of a prompt at a time: the logits of all of them are made, unless the graph can leave that
)
FIRST_ROOM = 256  # tokens; doubled as needed
KEEP = "num_logits_to_keep"  # where a graph has it: logits of so many last positions, 0 for all
DTYPES = {"float32": np.float32, "float16": np.float16}
OrtValue = onnxruntime.OrtValue


class OnnxDecoder:
    """A decoder graph; `begin` gives the cache of one text, which runs it."""

    def __init__(self, session: onnxruntime.InferenceSession, threads: int, cache: dict[str, Any]) -> None:
        self.session = session
        self.threads = threads
        self.shared: bool = cache["shared"]
        self.shape = (cache["kv_heads"], cache["head_size"])
        self.dtype = np.dtype(DTYPES[cache["dtype"]])
        names = cache["names"]
        self.past, self.present = (
            [
                names[f"{when}_{what}"].replace("{}", str(layer))
                for layer in range(cache["layers"])
                for what in ("key", "value")
            ]
            for when in ("past", "present")
        )
        self.inputs = {node.name for node in session.get_inputs()}
        _check_graph(self)

    @property
    def bytes_per_token(self) -> int:
        """What the cache takes for each token of each row."""
        return len(self.past) * self.shape[0] * self.shape[1] * self.dtype.itemsize

    def begin(self) -> "SharedCache | GrownCache":
        """The empty cache of one text."""
        return SharedCache(self, np.zeros(1, np.int64)) if self.shared else GrownCache(self)

    def join(self, caches: Sequence[Any]) -> "SharedCache | GrownCache":
        """One cache of as many rows, with copies of what these hold, to decode them together."""
        return (SharedCache if self.shared else GrownCache).joined(self, caches)

    def run(self, binding: Any) -> None:
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises classes of its own for each fault
            raise EngineError(f"onnxruntime cannot run the graph: {first_line(error)}") from None

    def bind(self, binding: Any, feeds: dict[str, np.ndarray]) -> None:
        """Bind those inputs that the graph has. What is fed must be kept until it has run."""
        for name in feeds.keys() & self.inputs:
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(feeds[name]))

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "onnxruntime",
            "engine_version": onnxruntime.__version__,
            "threads": self.threads,
            "providers": self.session.get_providers(),
            "cache": "in place" if self.shared else "grown",
            "cache_bytes_per_token": self.bytes_per_token,
        }


class SharedCache:
    """Keys and values in one buffer a layer, (rows, kv_heads, room, head_size), written in place."""

    def __init__(self, decoder: OnnxDecoder, lengths: np.ndarray, room: int | None = None) -> None:
        self._decoder = decoder
        self.lengths = lengths
        heads, size = decoder.shape
        shape = (len(lengths), heads, room or FIRST_ROOM, size)
        self._buffers = [np.zeros(shape, decoder.dtype) for _ in decoder.past]
        self._token = np.zeros((len(lengths), 1), np.int64)
        self._logits: np.ndarray | None = None
        self._bind()

    @classmethod
    def joined(cls, decoder: OnnxDecoder, caches: Sequence["SharedCache"]) -> "SharedCache":
        lengths = np.concatenate([cache.lengths for cache in caches])
        made = cls(decoder, lengths, _room(int(lengths.max()) + 1))
        for number, buffer in enumerate(made._buffers):
            for row, cache in enumerate(caches):
                buffer[row, :, : lengths[row]] = cache._buffers[number][0, :, : lengths[row]]
        return made

    def _bind(self) -> None:
        """Past and present are the same memory; a token's input and logits are bound once, too."""
        decoder, self._binding = self._decoder, self._decoder.session.io_binding()
        self._binding.bind_output("logits", "cpu")  # the first of the outputs
        self._ones = np.ones((1, self._buffers[0].shape[2]), np.int64)
        for past, present, buffer in zip(decoder.past, decoder.present, self._buffers, strict=True):
            value = OrtValue.ortvalue_from_numpy(buffer)
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
        self._bound: dict[str, np.ndarray] | None = None  # what a single token needs, when it is bound

    def _make_room(self, tokens: int) -> None:
        room = self._buffers[0].shape[2]
        if tokens <= room:
            return
        heads, size = self._decoder.shape
        for number, buffer in enumerate(self._buffers):
            larger = np.zeros((len(self.lengths), heads, _room(tokens), size), buffer.dtype)
            larger[:, :, :room] = buffer
            self._buffers[number] = larger
        self._bind()

    def forward(self, ids: np.ndarray, every: bool = False) -> np.ndarray:
        """int64 (rows, n) → float32 logits of the last position (rows, vocabulary), or of `every` one
        (rows, n, vocabulary). Several tokens at once are for one row. Good until the next call only."""
        if ids.shape[1] == 1:
            logits = self._step(ids)
            return logits if every else logits[:, -1]
        found = []
        for at in range(0, ids.shape[1], CHUNK):
            found.append(self._chunk(ids[:, at : at + CHUNK], every))
        return np.concatenate(found, axis=1) if every else found[-1][:, -1]

    def _chunk(self, ids: np.ndarray, every: bool) -> np.ndarray:
        count = int(self.lengths[0]) + ids.shape[1]
        self._make_room(count)
        feeds = {"input_ids": np.ascontiguousarray(ids), "attention_mask": self._ones[:, :count]}
        feeds |= _keep(every)
        self._decoder.bind(self._binding, feeds)
        self._binding.bind_output("logits", "cpu")
        self._bound = None
        self._decoder.run(self._binding)
        self.lengths = self.lengths + ids.shape[1]
        return np.asarray(self._binding.get_outputs()[0].numpy())

    def _step(self, ids: np.ndarray) -> np.ndarray:
        """One token a row: float32 (rows, 1, vocabulary)."""
        total = int(self.lengths.max()) + 1
        self._make_room(total)
        if self._bound is None:
            self._bind_token()
        self._token[:] = ids
        mask = self._ones[:, :total]
        if len(self.lengths) > 1:  # only how many ones a row has matters
            mask = (np.arange(total) <= self.lengths[:, None]).astype(np.int64)
        self._decoder.bind(self._binding, {"attention_mask": mask})
        self._decoder.run(self._binding)
        self.lengths = self.lengths + 1
        if self._logits is None:  # now that the size is known, they get memory that is used again
            logits = np.asarray(self._binding.get_outputs()[0].numpy())
            self._logits, self._bound = np.empty_like(logits), None
            return logits
        return self._logits

    def _bind_token(self) -> None:
        self._bound = {"input_ids": self._token, **_keep(True)}
        self._decoder.bind(self._binding, self._bound)
        if self._logits is None:
            self._binding.bind_output("logits", "cpu")
        else:
            self._binding.bind_ortvalue_output("logits", OrtValue.ortvalue_from_numpy(self._logits))

    def rewind(self, length: int) -> None:
        """Forget all tokens behind the first `length`."""
        self.lengths = np.minimum(self.lengths, length)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        self.lengths = self.lengths[list(rows)]
        self._buffers = [buffer[list(rows)] for buffer in self._buffers]
        self._token, self._logits = self._token[list(rows)], None
        self._bind()


class GrownCache:
    """Keys and values as the graph gave them last, and how many places on the left of a row are padding."""

    def __init__(self, decoder: OnnxDecoder) -> None:
        heads, size = decoder.shape
        empty = np.zeros((1, heads, 0, size), decoder.dtype)
        self._decoder = decoder
        self._values = [OrtValue.ortvalue_from_numpy(empty) for _ in decoder.past]
        self._pads = np.zeros(1, np.int64)
        self._total = 0

    @classmethod
    def joined(cls, decoder: OnnxDecoder, caches: Sequence["GrownCache"]) -> "GrownCache":
        made = cls(decoder)
        made._total = max(cache._total for cache in caches)
        made._pads = np.array([made._total - cache._total for cache in caches], np.int64)
        for number in range(len(decoder.past)):
            parts = [
                np.pad(cache._values[number].numpy(), ((0, 0), (0, 0), (pad, 0), (0, 0)))
                for cache, pad in zip(caches, made._pads.tolist(), strict=True)
            ]
            made._values[number] = OrtValue.ortvalue_from_numpy(np.concatenate(parts))
        return made

    @property
    def lengths(self) -> np.ndarray:
        return self._total - self._pads

    def forward(self, ids: np.ndarray, every: bool = False) -> np.ndarray:
        """As `SharedCache.forward`."""
        found = []
        for at in range(0, ids.shape[1], CHUNK):
            found.append(self._chunk(np.ascontiguousarray(ids[:, at : at + CHUNK]), every))
        return np.concatenate(found, axis=1) if every else found[-1][:, -1]

    def _chunk(self, ids: np.ndarray, every: bool) -> np.ndarray:
        decoder, binding = self._decoder, self._decoder.session.io_binding()
        places = np.arange(self._total + ids.shape[1])
        mask = (places >= self._pads[:, None]).astype(np.int64)
        positions = np.ascontiguousarray(places[self._total :] - self._pads[:, None])
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **_keep(every)}
        decoder.bind(binding, feeds)
        for name, value in zip(decoder.past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in ("logits", *decoder.present):
            binding.bind_output(name, "cpu")
        decoder.run(binding)
        logits, *self._values = binding.get_outputs()
        self._total += ids.shape[1]
        return np.asarray(logits.numpy())

    def rewind(self, length: int) -> None:
        """Forget all tokens behind the first `length`; of one row only."""
        if length < self._total:
            cut = [np.ascontiguousarray(value.numpy()[:, :, :length]) for value in self._values]
            self._values = [OrtValue.ortvalue_from_numpy(value) for value in cut]
            self._total = length

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        self._pads = self._pads[list(rows)]
        kept = [np.ascontiguousarray(value.numpy()[list(rows)]) for value in self._values]
        self._values = [OrtValue.ortvalue_from_numpy(value) for value in kept]


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = ("CPUExecutionProvider",),
    allow_fallback: bool = False,
) -> OnnxDecoder:
    """Open a decoder graph. Raises EngineError as `runtimes.engines.onnx.open`, and where the graph is not
    what the variant's `cache` entry says."""
    session = start(source, threads, variant["file"], providers, allow_fallback)
    try:
        return OnnxDecoder(session, threads, variant["cache"])
    except ValueError as error:
        raise EngineError(f"{variant['file']}: {error}; export it again") from None


def _check_graph(decoder: OnnxDecoder) -> None:
    inputs = {node.name: node for node in decoder.session.get_inputs()}
    outputs = {node.name: node for node in decoder.session.get_outputs()}
    wanted = {"float32": "tensor(float)", "float16": "tensor(float16)"}[decoder.dtype.name]
    for name, nodes in [(n, inputs) for n in decoder.past] + [(n, outputs) for n in decoder.present]:
        if name not in nodes or nodes[name].type != wanted or len(nodes[name].shape) != 4:
            raise ValueError(f"the graph has no {wanted} {name!r} of 4 dimensions, so its cache is another")
    for name in decoder.past:
        told = [inputs[name].shape[axis] for axis in (1, 3)]
        if any(isinstance(size, int) and size != own for size, own in zip(told, decoder.shape, strict=True)):
            raise ValueError(f"{name!r} has heads and size {told}, not {list(decoder.shape)}")
    known = {"input_ids", "attention_mask", "position_ids", KEEP, *decoder.past}
    if "input_ids" not in inputs or inputs.keys() - known:
        raise ValueError(f"the graph's inputs are {', '.join(sorted(inputs.keys() - known)) or 'too few'}")
    if "logits" not in outputs or outputs["logits"].type != "tensor(float)":
        raise ValueError("the graph gives no float32 logits")


def _keep(every: bool) -> dict[str, np.ndarray]:
    return {KEEP: np.array(0 if every else 1, np.int64)}


def _room(tokens: int) -> int:
    """FIRST_ROOM, doubled until it holds so many."""
    return FIRST_ROOM << max(0, (-(-tokens // FIRST_ROOM) - 1).bit_length())
