"""Metrics over runs and qrels, intervals, reports."""
