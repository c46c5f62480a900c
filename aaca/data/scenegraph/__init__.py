"""Scene graphs of images, and the files they come in: what a captioner is controlled by (ASG2Caption, EGA)."""
