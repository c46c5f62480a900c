"""Prompt writers: what a text-to-image model is asked for, class by class."""
