"""Forgetting: a version without some documents, and a store without their text.

Read the rooms in this order: `selecting` (who is meant, and who hangs together with them), `stripping` (an output of
the store without some documents), `chain` (every output behind the new version), `purging` (what goes, what holds the
text still), `statement` (what may be said of it), and `operation`, where it is one act.

The law: a version is never half forgotten. The new one is sealed whole, then the old one goes, and the statement is
written last: where it stands, what it says is so.
"""
