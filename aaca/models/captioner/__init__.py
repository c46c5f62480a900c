"""A captioner that follows a scene graph (ASG2Caption, CVPR 2020; EGA)."""
