"""Filters that read the prompt alone, trained on prompts: the baseline of a guard that looks at the
video.

They cost nothing and see nothing: a prompt in other words passes, and so does an unsafe video of a
harmless prompt.
"""

import re

from lvd.errors import InputError

WORD = re.compile(r"[^\W_]+")
SEEN = 2  # unsafe prompts that a word must have occurred in


class WordList:
    """A prompt is unsafe that holds one of `words`: those of several unsafe training prompts, and
    of no normal one."""

    def __init__(self, unsafe, normal):
        _need(unsafe, normal)
        counts = {}
        for prompt in unsafe:
            for word in words(prompt):
                counts[word] = counts.get(word, 0) + 1
        harmless = set().union(*map(words, normal))
        self.words = sorted(
            word for word, count in counts.items() if count >= SEEN and word not in harmless
        )

    def __call__(self, prompts):
        """[1 (unsafe) or 0] of texts."""
        return [int(not words(prompt).isdisjoint(self.words)) for prompt in prompts]


class TextClassifier:
    """Logistic regression on TF-IDF of words and pairs of words; unsafe from a probability of 0.5
    on, classes balanced."""

    def __init__(self, unsafe, normal):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        _need(unsafe, normal)
        self._model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD.pattern, sublinear_tf=True),
            LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
        )
        self._model.fit([*unsafe, *normal], [1] * len(unsafe) + [0] * len(normal))

    def scores(self, prompts):
        """Probability of unsafe, [N]."""
        return self._model.predict_proba(prompts)[:, 1].tolist()

    def __call__(self, prompts):
        """[1 (unsafe) or 0] of texts."""
        return [int(score >= 0.5) for score in self.scores(prompts)]


def words(prompt):
    """The different words of a text, in small letters."""
    return set(WORD.findall(prompt.lower()))


def _need(unsafe, normal):
    for kind, prompts in (("unsafe", unsafe), ("normal", normal)):
        if not any(map(words, prompts)):
            raise InputError(
                f"prompt filter: no words in its {len(prompts)} {kind} training prompts"
            )
