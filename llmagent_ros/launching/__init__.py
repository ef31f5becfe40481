"""Running ROS 2 launch files in XML where `ros2 launch` is not installed.

`description.expand` turns a file and its arguments into `ProcessSpec`s with the command lines that launch_ros would
make; `supervisor.Supervisor` runs them. Nothing is started before everything has been expanded and found.

No process-manager library is used: honcho has no respawn, required processes or ordered shutdown, circus and
supervisor are daemons that are steered over sockets. What a launch needs of one is `Supervisor`, on top of psutil.
"""
