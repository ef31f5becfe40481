"""A differential-drive robot among obstacles and coloured objects in PyBullet.

The Gymnasium environment is registered by Gymnasium's own plug-in entry point (setup.py) or by
`llmagent_ros.simulation.env.register()`.
"""
