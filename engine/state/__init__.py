"""From logs and histories to states: item embeddings and the encoder of a history."""
