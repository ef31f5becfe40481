"""An arm at a table with coloured objects in PyBullet.

The Gymnasium environment is `gymnasium.make("llmagent_ros.simulation.arm.env:llmagent/Arm-v0")`.
"""
