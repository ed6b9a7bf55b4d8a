"""The name's picture, drawn in place: nothing is fetched from elsewhere."""

from __future__ import annotations

_SCALES = (
    '<g fill="none" stroke="#16968F" stroke-width="3" stroke-linecap="round" stroke-linejoin="round">'
    '<path d="M20 7v25M12 33h16M6 13h28"/>'
    '<path d="M1 23a6.500 6.500 0 0 0 13 0z"/><path d="M26 23a6.500 6.500 0 0 0 13 0z"/></g>'
)
ICON = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40" width="64" height="64">{_SCALES}</svg>'
LOGO = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 190 40" width="190" height="40">{_SCALES}'
    '<text x="49" y="29" font-family="Source Serif 4, Georgia, serif" font-size="27" fill="#16968F">Fairstate</text></svg>'
)
ABOUT = "**Fairstate**: a lab for fairness-aware interactive recommendation."
