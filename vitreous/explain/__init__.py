"""Seeing inside: attention maps, rollout, relevance, distance and embeddings, and their figures."""
