"""The model card's training procedure: rows of (context, candidate, label) to a checkpoint."""
