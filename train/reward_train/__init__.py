"""The model card's training procedure: from rows of (context, candidate, label) to a checkpoint."""
