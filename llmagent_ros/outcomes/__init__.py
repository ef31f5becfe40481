"""What a control period of a real robot was worth, and when its episode is over. ROS-free."""
