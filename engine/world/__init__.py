"""Worlds: a batched simulator of sessions, and the models of how users respond."""
