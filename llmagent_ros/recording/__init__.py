"""What a run leaves behind: episodes.csv, TensorBoard logs, summary.json and learning_curve.png. ROS-free."""
