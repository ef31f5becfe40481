"""What stands between any chooser of commands and the robot's motors."""
