"""Recordings put together with perception and learning: scenes said again, demonstrations, transitions."""
