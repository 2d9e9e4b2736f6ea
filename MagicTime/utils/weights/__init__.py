"""From weight files in their published layouts to a model: read, check, rename, merge."""
