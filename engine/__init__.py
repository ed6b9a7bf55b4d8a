"""Fairstate's engine: worlds, states, purifiers, methods, and the measurement of all four. It knows no database and no app."""

from engine.registration import register_when_used

register_when_used()
