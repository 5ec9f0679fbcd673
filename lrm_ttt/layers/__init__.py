"""Modules that know no camera."""
