"""Tiny Keras classifiers of the topics, in every form that a user may bring; imports TensorFlow.

`python tiny_keras.py FOLDER` writes words.json (a tokenizer), cnn.keras (24 tokens, softmax), bag_saved/ (any
length, a mask, logits, a Keras export), int8.tflite (integers at its border), py_saved/, string.keras,
lambda.keras.
"""

import os
import sys
from pathlib import Path

from tiny_news import FILLER, TOPICS, rows

LENGTH = 24


def tokenizer(path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", *sorted({w for t in TOPICS.values() for w in t.split()} | set(FILLER))]
    words += [f"word{number}" for number in range(2_000)]  # enough weights that quantizing them saves bytes
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.save(str(path))
    return made


def main(folder: Path) -> None:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    import keras
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    made = tokenizer(folder / "words.json")
    size = made.get_vocab_size()
    texts, labels = rows(400, 0)
    x, y = np.zeros((len(texts), LENGTH), np.int32), np.array(labels)
    for row, text in enumerate(texts):
        ids = made.encode(text).ids[:LENGTH]
        x[row, : len(ids)] = ids
    keras.utils.set_random_seed(0)

    def fit(model, inputs, from_logits):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        model.compile(keras.optimizers.Adam(0.02), loss)
        model.fit(inputs, y, epochs=8, verbose=0)
        return model

    layers = keras.layers
    ids = keras.Input((LENGTH,), name="ids")  # float32, as Keras has it by default
    hidden = layers.Conv1D(16, 3, activation="relu", padding="same")(layers.Embedding(size, 16)(ids))
    hidden = layers.GlobalMaxPooling1D()(hidden)
    cnn = fit(keras.Model(ids, layers.Dense(4, activation="softmax")(hidden)), x, False)
    cnn.save(folder / "cnn.keras")

    words = keras.Input((None,), dtype="int32", name="input_word_ids")
    seen = keras.Input((None,), dtype="int32", name="input_mask")
    weight = keras.ops.expand_dims(keras.ops.cast(seen, "float32"), -1)
    total = keras.ops.sum(layers.Embedding(size, 16)(words) * weight, axis=1)
    mean = total / keras.ops.maximum(keras.ops.sum(weight, axis=1), 1.0)
    bag = fit(keras.Model([words, seen], layers.Dense(4)(mean)), [x, (x > 0).astype(np.int32)], True)
    bag.export(str(folder / "bag_saved"), verbose=False)

    spec = tf.TensorSpec((1, LENGTH), tf.int32, name="ids")
    call = tf.function(lambda ids: cnn(tf.cast(ids, tf.float32)), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x[:50])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())

    class Python(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, LENGTH), tf.int32, name="ids")])
        def serve(self, ids):
            (doubled,) = tf.py_function(lambda a: a * 2, [tf.cast(ids, tf.float32)], [tf.float32])
            return tf.ensure_shape(doubled, (None, LENGTH))[:, :4]

    python = Python()
    tf.saved_model.save(python, str(folder / "py_saved"), signatures=python.serve)

    strings = layers.TextVectorization(output_sequence_length=LENGTH)
    strings.adapt(texts)
    text = keras.Input((), dtype="string")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(200, 4)(strings(text)))
    keras.Model(text, layers.Dense(4)(pooled)).save(folder / "string.keras")
    twice = layers.Lambda(lambda z: z * 2)(layers.Embedding(size, 4)(ids))
    keras.Model(ids, layers.Dense(4)(layers.GlobalAveragePooling1D()(twice))).save(folder / "lambda.keras")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
