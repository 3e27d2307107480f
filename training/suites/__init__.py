"""Questions with known answers, put to a model by likelihood: multiple choice, and texts to be continued (cloze).

A suite is a TOML file that names sets and how they are put; a set is a version whose document index holds items. Read
the rooms in this order: `suite` (the file), `items` (what is asked), `prompts` (few-shot, and the tokens of a text that
is cut in two), `likelihood` (log P of continuations, in batches that every number of processes forms alike), `scores`
(metrics, their intervals, chance), `taking` (a suite from file to result), `exposure` (which items the training data
held, and when they were read), `prediction` (bits per byte of a split), `places` and `page` (where results lie, and
how they are read), `contrast` (runs held against one another), `adapter` (lm-eval asks the same).

The law: every score has its interval, its chance level and its items, of which each can be looked up.
"""

from training.suites.items import Item, read
from training.suites.suite import Set, Suite, load

__all__ = ["Item", "Set", "Suite", "load", "read"]
