"""Runs a real tritonserver without a container."""
