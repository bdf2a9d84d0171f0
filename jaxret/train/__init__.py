"""Objectives, the step, the loop."""
