"""Learning to learn: an initial adapter and critic from which a new task needs a few episodes."""
