"""Pure helpers that methods share. No trainer class: a method owns its loop."""
