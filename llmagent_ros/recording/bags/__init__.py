"""Bags: what was said on the topics of an episode, as rosbag2 reads it (MCAP), written, mended, read, redacted."""
