"""Fairstate's engine: worlds, states, purifiers, methods, and the measurement of all four. It knows no database and no app."""
