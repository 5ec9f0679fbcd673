"""Ranks that share one scene."""
