"""From recordings and labels to the clips that a detector reads."""
