"""Transitions as data sets that others read: Parquet, and LeRobot's layout of version 3."""
