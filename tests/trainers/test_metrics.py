import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from runtimes.tasks.classify import softmax
from trainers.metrics import classification_report, confident_errors

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(rows)
def test_report_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    report = classification_report(np.eye(4)[said], truth)
    assert report["accuracy"] == accuracy_score(truth, said)
    macro = precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
    assert np.allclose([report["macro"][k] for k in ("precision", "recall", "f1")], macro[:3])
    assert report["confusion"] == confusion_matrix(truth, said, labels=range(4)).tolist()
    assert sum(entry["n"] for entry in report["per_class"]) == report["n"] == len(pairs)


def test_confident_errors_come_by_score_and_hold_no_texts() -> None:
    logits = np.array([[5.0, 0, 0], [0, 9, 0], [0, 3, 0], [0, 0, 1]])
    errors = confident_errors(logits, [0, 0, 2, 2], top=5)
    assert [e["row"] for e in errors] == [1, 2]
    assert errors[0] == {"row": 1, "label": 0, "predicted": 1, "score": softmax(logits[1])[1]}
    assert [e["row"] for e in confident_errors(logits, [0, 0, 2, 2], top=1)] == [1]


def test_softmax_does_not_overflow() -> None:
    assert np.allclose(softmax(np.array([1e4, 1e4 - 1])), softmax(np.array([1.0, 0.0])))
