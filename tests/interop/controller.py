"""An external controller in plain rclpy: walks on while the way is free, turns to the freer side, stops at the end."""

import sys

import rclpy
from geometry_msgs.msg import Twist
from std_msgs.msg import Float32MultiArray


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("controller")
    publisher = node.create_publisher(Twist, "/cmd_vel", 10)
    heard = []

    def steer(message: Float32MultiArray) -> None:
        heard.append(message)
        command = Twist()
        sectors = message.data
        blocked = min(sectors[0], sectors[1], sectors[15]) < 1.4
        command.linear.x = 0.1 if blocked else 0.5
        if blocked:
            command.angular.z = 0.8 if sum(sectors[1:6]) > sum(sectors[11:16]) else -0.8
        publisher.publish(command)

    node.create_subscription(Float32MultiArray, sys.argv[1], steer, 10)
    # Until the first result, standing commands: the run waits for them.
    node.create_timer(0.1, lambda: None if heard else publisher.publish(Twist()))
    rclpy.spin(node)


if __name__ == "__main__":
    main()
