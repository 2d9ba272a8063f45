"""ROS 2: results, sensors and latency out, commands and images in, with or without a ROS 2 installation."""
