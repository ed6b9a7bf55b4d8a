"""Luck by counting: a uniform number that depends only on (seed, user, step, item), so that an item meets the same luck in
any slot and under any policy. A 64-bit mix (Stafford's variant 13, as in SplitMix64) on tensors; no state, any device."""

from __future__ import annotations

from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_USER, _STEP, _ITEM, _SEED = map(_signed, (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7, 0xABC98388FB8FAC03))
_FIRST, _SECOND = map(_signed, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _times(count: int | Tensor, factor: int) -> int | Tensor:
    """count·factor modulo 2⁶⁴."""
    return count * factor if isinstance(count, Tensor) else _signed(count * factor)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def key(seed: int | Tensor, users: Tensor) -> Tensor:
    """int64 (B,): the part of the count that stays the same over a session; one seed for all users or one each (B,)."""
    return _mix(users * _USER + _times(seed, _SEED))


def uniform(key: Tensor, step: int | Tensor, items: Tensor) -> Tensor:
    """float32 (B,K) in [0, 1) for items (B,K) shown at `step`, the same for all or (B,), to the users of `key` (B,)."""
    x = _mix(items * _ITEM + (key + _times(step, _STEP)).unsqueeze(1))
    return ((x >> 40) & 0xFFFFFF).float() * (1 / (1 << 24))
