"""What a model has to beat on the same rows: a linear SVM and the most frequent class; for readers
the sentence that is most like the question, and silence."""

import re
from collections import Counter
from typing import Any

import numpy as np

from trainers.data import Dataset
from trainers.metrics import classification_report
from trainers.spans import span_report
from trainers.squad import Question, QuestionSet

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")


def tfidf_svc(dataset: Dataset) -> dict[str, Any]:
    """Report on the test split of TF-IDF (words and word pairs, sublinear) + LinearSVC, fitted on train."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    train, test = dataset.splits["train"], dataset.splits["test"]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    seed = dataset.source.get("prepared", {}).get("config", {}).get("seed", 0)
    model = LinearSVC(random_state=seed).fit(words.fit_transform(train.texts), train.labels)
    scores = model.decision_function(words.transform(test.texts))
    if scores.ndim == 1:  # two classes: one margin
        scores = np.stack([-scores, scores], axis=1)
    wide = np.full((len(test), len(dataset.label_names)), -np.inf)
    wide[:, model.classes_] = scores
    return {"name": "TF-IDF + LinearSVC", **classification_report(wide, test.labels)}


def majority(dataset: Dataset) -> dict[str, Any]:
    """Report on the test split of always giving train's most frequent class."""
    counts = Counter(dataset.splits["train"].labels)
    most = min(counts, key=lambda label: (-counts[label], label))
    scores = np.zeros((len(dataset.splits["test"]), len(dataset.label_names)))
    scores[:, most] = 1.0
    return {"name": "majority class", **classification_report(scores, dataset.splits["test"].labels)}


def nearest_sentence(questions: QuestionSet) -> dict[str, Any]:
    """Report on the test questions of giving the passage's sentence with the highest TF-IDF cosine."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    test = questions.splits["test"]
    words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    words.fit(dict.fromkeys(one.context for one in questions.splits["train"]))
    said = [_nearest(words, one) for one in test]
    return {"name": "nearest sentence", **span_report(said, _golds(test))}


def _nearest(words: Any, one: Question) -> str:
    sentences = [found.group().strip() for found in _SENTENCE.finditer(one.context)] or [one.context]
    near = words.transform(sentences) @ words.transform([one.question]).T
    return str(sentences[int(near.toarray().argmax())])


def silence(questions: QuestionSet) -> dict[str, Any]:
    """Report on the test questions of never answering: right where nothing is to be found."""
    test = questions.splits["test"]
    return {"name": "silence", **span_report([""] * len(test), _golds(test))}


def _golds(questions: list[Question]) -> list[list[str]]:
    return [[text for _, text in one.answers] for one in questions]
