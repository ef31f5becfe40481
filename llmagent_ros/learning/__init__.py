"""Learning, ROS-free: rl (replay, critic, actor), used unchanged by the learner node and by `llmagent train`."""
