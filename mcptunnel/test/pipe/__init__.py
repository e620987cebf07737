"""Tests for mcptunnel.pipe."""
