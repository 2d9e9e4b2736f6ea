"""From weight files in their published layouts to a sampler: read, checked, renamed, merged."""
