"""A differential-drive robot among obstacles and coloured objects in PyBullet.

The Gymnasium environment is `gymnasium.make("llmagent_ros.simulation.env:llmagent/Navigate-v0")`.
"""
