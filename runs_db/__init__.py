"""Runs in a database: who may write what, and when.

One row of `runs` is one run. A queued row belongs to nobody; `queue.claim` gives it to one process by raising `epoch` in a
single statement, and from then on every write names (run, epoch): a process that lost its claim changes nothing, is told
so, and exits. Metrics are committed before the checkpoint that follows them. A finished row never changes, except for its
name, tags and notes. Objects returned by `store` are frozen copies, safe to share between threads. Schema changes happen
in `migrate` alone, under a lock; everything else checks the version and refuses in words. The whole contract with its
reasons: docs/jobs.md.
"""
