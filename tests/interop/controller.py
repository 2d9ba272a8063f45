"""An external controller in plain rclpy: walks round what stands in the way, and stops where it is told to.

python controller.py CLEARANCE_TOPIC GOAL_X [blind]
"""

import math
import sys

import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from std_msgs.msg import Float32MultiArray

SPEED = 0.5
"""[m/s]"""
NEAR = 1.8
"""Free distance below which a sector pushes the heading away [m]."""
SECTORS = 16


def main() -> None:
    clearance_topic, goal = sys.argv[1], float(sys.argv[2])
    blind = sys.argv[3:] == ["blind"]
    rclpy.init()
    node = rclpy.create_node("controller")
    publisher = node.create_publisher(Twist, "/cmd_vel", 10)
    pose = {}

    def remember(message: Odometry) -> None:
        turned = message.pose.pose.orientation
        pose["x"], pose["heading"] = message.pose.pose.position.x, 2 * math.atan2(turned.z, turned.w)

    def steer(message: Float32MultiArray) -> None:
        if not pose or pose["x"] > goal:
            publisher.publish(Twist())
            return
        near = [0.0 if blind else max(0.0, NEAR - distance) / NEAR for distance in message.data]
        # Sector 0 is straight ahead, the others follow counter-clockwise: what is on the right pushes to the left.
        pushed = sum(near[index] - near[-index] for index in (1, 2, 3))
        # What is straight ahead pushes to the side that is freer.
        pushed = math.copysign(abs(pushed) + near[0], -pushed)
        command = Twist()
        command.linear.x = SPEED * (1.0 - 0.6 * max(near[0], near[1], near[-1]))
        command.angular.z = 1.5 * (max(-0.9, min(0.9, pushed)) - pose["heading"])
        publisher.publish(command)

    node.create_subscription(Odometry, "/odom", remember, 10)
    node.create_subscription(Float32MultiArray, clearance_topic, steer, 10)
    # Until the first results, standing commands: the run waits for them.
    node.create_timer(0.1, lambda: None if pose else publisher.publish(Twist()))
    rclpy.spin(node)


if __name__ == "__main__":
    main()
